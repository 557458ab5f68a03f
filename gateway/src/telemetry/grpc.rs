//! How a call of gRPC went. Its answers have the status 200 whatever became of the call; that stands in `grpc-status`, behind
//! the content, or in the head of an answer without any (gRPC over HTTP2, "Responses").

use http::{HeaderMap, HeaderName};

/// What an answer of gRPC says of its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcStatus {
    /// Nothing, or nothing that is one of gRPC's numbers.
    Unsaid,
    /// One of gRPC's numbers: 0, OK, to 16, UNAUTHENTICATED.
    Said(u8),
}

impl GrpcStatus {
    /// What these fields say, of a head or behind the content. What is said twice is not said.
    pub fn of(fields: &HeaderMap) -> Self {
        let mut values = fields.get_all(STATUS).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Self::Unsaid;
        };
        match value.as_bytes() {
            [digit @ b'0'..=b'9'] => Self::Said(digit - b'0'),
            [b'1', digit @ b'0'..=b'6'] => Self::Said(10 + digit - b'0'),
            _ => Self::Unsaid,
        }
    }

    /// What a client makes of an answer of HTTP that says nothing of its call (gRPC, "HTTP to gRPC Status Code Mapping").
    pub fn of_http(status: u16) -> Self {
        Self::Said(match status {
            // INTERNAL
            400 => 13,
            // UNAUTHENTICATED
            401 => 16,
            // PERMISSION_DENIED
            403 => 7,
            // UNIMPLEMENTED
            404 => 12,
            // UNAVAILABLE
            429 | 502..=504 => 14,
            // UNKNOWN
            _ => 2,
        })
    }

    /// Its number, where one was said.
    pub fn number(self) -> Option<u8> {
        match self {
            Self::Unsaid => None,
            Self::Said(number) => Some(number),
        }
    }

    /// The status of HTTP that means the same, as Envoy and gRPC's gateways have it; none where none was said.
    fn as_http(self) -> Option<u16> {
        Some(match self.number()? {
            0 => 200,
            // CANCELLED: the client went away.
            1 => 499,
            // INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE
            3 | 9 | 11 => 400,
            // DEADLINE_EXCEEDED
            4 => 504,
            // NOT_FOUND
            5 => 404,
            // ALREADY_EXISTS, ABORTED
            6 | 10 => 409,
            // PERMISSION_DENIED
            7 => 403,
            // RESOURCE_EXHAUSTED
            8 => 429,
            // UNIMPLEMENTED
            12 => 501,
            // UNAVAILABLE
            14 => 503,
            // UNAUTHENTICATED
            16 => 401,
            // UNKNOWN, INTERNAL, DATA_LOSS
            _ => 500,
        })
    }

    /// The status of HTTP that a server is judged by; none where it says nothing of the server. A client that leaves a server no time
    /// (`grpc-timeout`), or asks for what no server has, gets DEADLINE_EXCEEDED and UNIMPLEMENTED from well ones, from all of them
    /// if it likes.
    pub fn as_judged(self) -> Option<u16> {
        match self.number()? {
            4 | 12 => None,
            _ => self.as_http(),
        }
    }

    /// Whether the fault is the server's, as with a status of HTTP from 500 on: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED,
    /// INTERNAL, UNAVAILABLE and DATA_LOSS.
    pub fn is_servers_fault(self) -> bool {
        self.as_http().is_some_and(|status| status >= 500)
    }
}

/// The field that says it.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(values: &[&[u8]]) -> GrpcStatus {
        let mut fields = HeaderMap::new();
        for value in values {
            fields.append(STATUS, HeaderValue::from_bytes(value).unwrap());
        }
        GrpcStatus::of(&fields)
    }

    #[test]
    fn only_grpcs_own_numbers_are_taken() {
        for number in 0..=16_u8 {
            assert_eq!(of(&[number.to_string().as_bytes()]), GrpcStatus::Said(number));
        }
        let others: [&[u8]; 10] = [b"", b"17", b"99", b"00", b"05", b"-1", b"+1", b"1 ", b"1000", b"\xff"];
        for other in others {
            assert_eq!(of(&[other]), GrpcStatus::Unsaid, "{other:?}");
        }
        assert_eq!(of(&[]), GrpcStatus::Unsaid);
        assert_eq!(
            of(&[b"0", b"13"]),
            GrpcStatus::Unsaid,
            "two readers would read two things"
        );
    }

    #[test]
    fn statuses_of_http_mean_what_grpc_says_that_they_do() {
        for (status, number) in [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (408, 2),
            (413, 2),
            (429, 14),
            (500, 2),
            (501, 2),
            (502, 14),
            (503, 14),
            (504, 14),
            (505, 2),
        ] {
            assert_eq!(GrpcStatus::of_http(status), GrpcStatus::Said(number), "{status}");
        }
    }

    #[test]
    fn the_servers_faults_are_those_that_grpc_counts_as_such() {
        let faults: Vec<u8> = (0..=16).filter(|n| GrpcStatus::Said(*n).is_servers_fault()).collect();
        assert_eq!(faults, [2, 4, 12, 13, 14, 15]);
        assert!(!GrpcStatus::Unsaid.is_servers_fault());
        assert_eq!(GrpcStatus::Said(14).as_http(), Some(503));
        assert_eq!(GrpcStatus::Said(0).as_http(), Some(200));
    }

    #[test]
    fn no_server_is_judged_by_what_a_client_can_make_it_say() {
        assert_eq!(GrpcStatus::Said(4).as_judged(), None);
        assert_eq!(GrpcStatus::Said(12).as_judged(), None);
        assert_eq!(GrpcStatus::Said(13).as_judged(), Some(500));
        assert_eq!(GrpcStatus::Said(0).as_judged(), Some(200));
    }
}
