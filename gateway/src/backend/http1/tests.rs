#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::VecDeque;
use std::future::poll_fn;

use http::{HeaderValue, Request, header};
use http_body::SizeHint;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

/// Content that comes in these pieces.
struct Pieces {
    pieces: VecDeque<Frame<Bytes>>,
    length: Option<u64>,
}

impl Pieces {
    fn new(pieces: &[&'static str], length: Option<u64>) -> Self {
        let pieces = pieces
            .iter()
            .map(|piece| Frame::data(Bytes::from_static(piece.as_bytes())));
        Self {
            pieces: pieces.collect(),
            length,
        }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(self.pieces.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or(SizeHint::default(), SizeHint::with_exact)
    }
}

const LIMITS: ResponseLimits = ResponseLimits {
    head: 256,
    headers: 4,
    informational: 4,
};

/// A connection, and its other end.
async fn pair() -> (Connection, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (Connection::new(Stream::Plain(near.unwrap()), LIMITS), far.unwrap().0)
}

fn request(method: &str, fields: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder().method(method).uri("/a?b");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// What a request looks like on the wire.
async fn written(request: &request::Parts, mut body: Pieces) -> Result<String, &'static str> {
    let (mut near, mut far) = pair().await;
    near.begin(request, &body);
    let sent = poll_fn(|cx| near.poll_send(cx, &mut body)).await;
    drop(near);
    let mut bytes = String::new();
    far.read_to_string(&mut bytes).await.unwrap();
    match sent {
        Ok(()) => Ok(bytes),
        Err(SendError::Length) => Err("length"),
        Err(SendError::Content(_) | SendError::Io(_)) => Err("broken"),
    }
}

#[tokio::test]
async fn content_is_framed_by_what_it_is() {
    const LIES: &[(&str, &str)] = &[("host", "x"), ("content-length", "7"), ("transfer-encoding", "chunked")];
    let get = request("GET", &[("host", "x")]);
    let post = request("POST", &[("host", "x")]);
    let lies = request("GET", LIES);
    let none = || Pieces::new(&[], None);
    for (what, body, behind) in [
        (&get, none(), "\r\n"),
        (&post, none(), "content-length: 0\r\n\r\n"),
        (&lies, none(), "content-length: 0\r\n\r\n"),
        (
            &lies,
            Pieces::new(&["ab", "c"], Some(3)),
            "content-length: 3\r\n\r\nabc",
        ),
        (
            &get,
            Pieces::new(&["ab", "c"], None),
            "transfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        ),
        (
            &get,
            Pieces::new(&["", "a"], None),
            "transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        ),
    ] {
        let head = format!("{} /a?b HTTP/1.1\r\nhost: x\r\n", what.method);
        assert_eq!(written(what, body).await, Ok(format!("{head}{behind}")));
    }
}

#[tokio::test]
async fn trailers_follow_chunks() {
    let mut body = Pieces::new(&["a"], None);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "1".parse().unwrap());
    body.pieces.push_back(Frame::trailers(trailers));
    let bytes = written(&request("POST", &[]), body).await.unwrap();
    let (_, content) = bytes.split_once("\r\n\r\n").unwrap();
    assert_eq!(content, "1\r\na\r\n0\r\nx-sum: 1\r\n\r\n");
}

#[tokio::test]
async fn content_of_another_length_than_its_head_says_is_not_sent_as_if_it_were_whole() {
    let post = request("POST", &[]);
    assert_eq!(written(&post, Pieces::new(&["ab"], Some(3))).await, Err("length"));
    assert_eq!(written(&post, Pieces::new(&["ab", "cd"], Some(3))).await, Err("length"));
}

/// What is made of what a server says in answer to a request of this method: the heads' statuses, the content, and whether the
/// connection can be used again.
async fn heard(method: &str, pieces: &[&[u8]], closes: bool) -> Result<(Vec<u16>, String, bool), HeadError> {
    let (mut near, mut far) = pair().await;
    far.set_nodelay(true).unwrap();
    let request = request(method, &[]);
    let mut body = Pieces::new(&[], None);
    near.begin(&request, &body);
    poll_fn(|cx| near.poll_send(cx, &mut body)).await.unwrap();
    let says = async {
        for piece in pieces {
            far.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        if closes {
            far.shutdown().await.unwrap();
        }
        far
    };
    let hears = async {
        let mut statuses = Vec::new();
        loop {
            match poll_fn(|cx| near.poll_head(cx)).await {
                Ok(head) => statuses.push(head.status.as_u16()),
                Err(ReceiveError::Head(error)) => return Err(error),
                Err(ReceiveError::Io(_)) => return Ok((statuses, "ended".to_owned(), false)),
            }
            if statuses.last() >= Some(&200) || statuses.last() == Some(&101) {
                break;
            }
        }
        let mut content = String::new();
        while let Some(frame) = poll_fn(|cx| near.poll_content(cx)).await {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => content.push_str(std::str::from_utf8(&data).unwrap()),
                Ok(Err(_)) => content.push_str("+trailers"),
                Err(_) => {
                    content.push_str("+broken");
                    break;
                }
            }
        }
        Ok((statuses, content, near.is_idle()))
    };
    let (heard, _far) = tokio::join!(hears, says);
    heard
}

#[tokio::test]
async fn responses_end_where_they_say() {
    for (method, bytes, closes, statuses, content, goes_on) in [
        (
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
            false,
            &[200][..],
            "abc",
            true,
        ),
        (
            "GET",
            "\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            false,
            &[200],
            "",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200\r\ncontent-length: 3\r\ncontent-length: 03\r\n\r\nabc",
            false,
            &[200],
            "abc",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcd",
            false,
            &[200],
            "abc",
            false,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
            true,
            &[200],
            "ab+broken",
            false,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 1\r\n\r\na",
            false,
            &[200],
            "a",
            false,
        ),
        (
            "GET",
            "HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na",
            false,
            &[200],
            "a",
            false,
        ),
        (
            "GET",
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\na",
            false,
            &[200],
            "a",
            true,
        ),
        ("GET", "HTTP/1.1 200 OK\r\n\r\nabc", true, &[200], "abc", false),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            false,
            &[200],
            "abc",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: y\r\n\r\n",
            false,
            &[200],
            "a+trailers",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
            true,
            &[200],
            "abc+broken",
            false,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd",
            false,
            &[200],
            "abc+broken",
            false,
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n",
            false,
            &[200],
            "",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 204 No\r\ncontent-length: 0\r\n\r\n",
            false,
            &[204],
            "",
            true,
        ),
        // Content that there may not be could come behind it yet, and be taken for the next response.
        (
            "GET",
            "HTTP/1.1 204 No\r\ncontent-length: 3\r\n\r\n",
            false,
            &[204],
            "",
            false,
        ),
        (
            "GET",
            "HTTP/1.1 204 No\r\ntransfer-encoding: chunked\r\n\r\n",
            false,
            &[204],
            "",
            false,
        ),
        (
            "GET",
            "HTTP/1.1 304 Same\r\ncontent-length: 3\r\n\r\n",
            false,
            &[304],
            "",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 103 H\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na",
            false,
            &[103, 100, 200],
            "a",
            true,
        ),
        ("GET", "HTTP/1.1 101 S\r\nupgrade: x\r\n\r\n", false, &[101], "", false),
        ("GET", "HTTP/1.1 200 O", true, &[], "ended", false),
    ] {
        let expected = Ok((statuses.to_vec(), content.to_owned(), goes_on));
        assert_eq!(heard(method, &[bytes.as_bytes()], closes).await, expected, "{bytes:?}");
        let single: Vec<&[u8]> = bytes.as_bytes().chunks(1).collect();
        let (read, all, _) = heard(method, &single, closes).await.unwrap();
        assert_eq!(
            (read, all),
            (statuses.to_vec(), content.to_owned()),
            "{bytes:?} in single bytes"
        );
    }
}

#[tokio::test]
async fn what_is_no_response_or_two_is_refused() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(300));
    let endless = format!("HTTP/1.1 200 {}", "y".repeat(300));
    for (bytes, error) in [
        ("HTTP/2.0 200 OK\r\n\r\n", HeadError::Malformed),
        ("200 OK\r\n\r\n", HeadError::Malformed),
        ("HTTP/1.1 099 OK\r\n\r\n", HeadError::Malformed),
        ("HTTP/1.1 200 OK\r\nx : 1\r\n\r\n", HeadError::Malformed),
        ("HTTP/1.1 200 OK\r\nx: 1\r\n folded\r\n\r\n", HeadError::Malformed),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na",
            HeadError::Length,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\na", HeadError::Length),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            HeadError::Length,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            HeadError::Coding,
        ),
        (
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            HeadError::Coding,
        ),
        (
            "HTTP/1.1 200 OK\r\na: 1\r\nb: 1\r\nc: 1\r\nd: 1\r\ne: 1\r\n\r\n",
            HeadError::TooLarge,
        ),
        (&long, HeadError::TooLarge),
        (&endless, HeadError::TooLarge),
    ] {
        assert_eq!(heard("GET", &[bytes.as_bytes()], false).await, Err(error), "{bytes:?}");
    }
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_is_not_idle() {
    let (mut near, far) = pair().await;
    assert!(near.is_idle(), "nothing has been said");
    drop(far);
    // The end arrives with the next look at the socket.
    let Stream::Plain(tcp) = &near.stream else { panic!() };
    tcp.readable().await.unwrap();
    assert!(!near.is_idle());
}

#[tokio::test]
async fn a_connection_is_looked_at_however_much_its_task_has_done_before() {
    let (mut near, mut far) = pair().await;
    far.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
    let Stream::Plain(tcp) = &near.stream else { panic!() };
    tcp.readable().await.unwrap();
    // The task's share of this turn is used up.
    let mut used = 0;
    while tokio::task::coop::has_budget_remaining() {
        tokio::task::coop::consume_budget().await;
        used += 1;
        assert!(used < 10_000);
    }
    assert!(!near.is_idle());
}

#[tokio::test]
async fn a_few_bytes_do_not_hold_a_buffer_for_many() {
    let (mut near, mut far) = pair().await;
    let mut body = Pieces::new(&[], None);
    near.begin(&request("GET", &[]), &body);
    poll_fn(|cx| near.poll_send(cx, &mut body)).await.unwrap();
    far.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    poll_fn(|cx| near.poll_head(cx)).await.unwrap();
    far.write_all(b"a").await.unwrap();
    let frame = poll_fn(|cx| near.poll_content(cx)).await.unwrap().unwrap();
    let room = frame.into_data().unwrap().try_into_mut().unwrap().capacity();
    assert!(room <= 64, "{room}");
}

#[tokio::test]
async fn what_was_taken_for_a_request_that_could_not_be_written_is_given_back() {
    let (mut near, far) = pair().await;
    // With bytes unread, closing resets the connection: the next write fails.
    let mut first = Pieces::new(&[], None);
    near.begin(&request("GET", &[]), &first);
    poll_fn(|cx| near.poll_send(cx, &mut first)).await.unwrap();
    far.readable().await.unwrap();
    far.set_zero_linger().unwrap();
    drop(far);
    let Stream::Plain(tcp) = &near.stream else { panic!() };
    tcp.readable().await.unwrap();
    let mut body = Pieces::new(&["ab", "c"], Some(3));
    near.begin(&request("POST", &[]), &body);
    let sent = poll_fn(|cx| near.poll_send(cx, &mut body)).await;
    assert!(matches!(sent, Err(SendError::Io(_))), "{sent:?}");
    assert_eq!(near.unsent().as_deref(), Some(&b"ab"[..]));
    assert_eq!(body.pieces.len(), 1);
}

#[tokio::test]
async fn the_fields_of_a_request_without_content_are_read_back_as_they_were_written() {
    for (method, says_length) in [("GET", false), ("HEAD", false), ("POST", true)] {
        let fields = [
            ("host", "a"),
            ("x-own", "1, 2"),
            ("x-own", "3"),
            ("x-empty", ""),
            ("x-say", "a: b"),
        ];
        let mut request = request(method, &fields);
        let odd = HeaderValue::from_bytes(b"caf\xe9\t\x80").unwrap();
        request.headers.insert("x-odd", odd);
        let mut expected = request.headers.clone();
        if says_length {
            expected.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let (mut near, _far) = pair().await;
        let mut body = Pieces::new(&[], None);
        near.begin(&request, &body);
        poll_fn(|cx| near.poll_send(cx, &mut body)).await.unwrap();
        let read = near.begun_fields();
        assert_eq!(read.as_ref(), Some(&expected), "{method}");
        // And may be written once more.
        let made = near.out.made.clone();
        request.headers = read.unwrap();
        near.begin(&request, &body);
        assert_eq!(near.begun_fields(), Some(expected), "{method}");
        assert_eq!(near.out.made.len(), made.len(), "{method}");
    }
}

#[tokio::test]
async fn heads_that_come_in_one_anothers_midst_are_kept_apart() {
    let mut begun = Vec::new();
    for n in 10..30 {
        let (mut near, mut far) = pair().await;
        let mut body = Pieces::new(&[], None);
        near.begin(&request("GET", &[]), &body);
        poll_fn(|cx| near.poll_send(cx, &mut body)).await.unwrap();
        let half = format!("HTTP/1.1 200 OK\r\nx-number: {n}\r\nconte");
        far.write_all(half.as_bytes()).await.unwrap();
        let Stream::Plain(tcp) = &near.stream else { panic!() };
        tcp.readable().await.unwrap();
        // Every other one has its half read before the others come.
        if n % 2 == 0 {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(near.poll_head(&mut cx).is_pending());
            assert_eq!(near.head, half);
        }
        begun.push((n, near, far));
    }
    let mut heads = Vec::new();
    for (n, mut near, mut far) in begun {
        far.write_all(format!("nt-length: 2\r\n\r\n{n}").as_bytes())
            .await
            .unwrap();
        let head = poll_fn(|cx| near.poll_head(cx)).await.unwrap();
        heads.push((n, head, near));
    }
    for (n, head, mut near) in heads {
        let n = n.to_string();
        assert_eq!(head.headers["x-number"], n);
        let content = poll_fn(|cx| near.poll_content(cx)).await.unwrap().unwrap();
        assert_eq!(content.into_data().unwrap(), n);
    }
}
