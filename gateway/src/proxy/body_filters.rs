//! **body filters**: how the bodies of an exchange are filtered, decided when their heads are known; and the wait for a body,
//! or its beginning, where a component wants to see it before its head goes on.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body::{Body, Frame};

use super::body::RequestBody;
use super::client::Client;
use super::content::Content;
use super::error::ProxyError;
use super::filtered::{BodyFilter, BodyFilters, Filter, Stopped};
use super::heavy;
use super::lease::Lease;
use super::local::Local;
use super::policy;
use super::turns::Late;
use crate::policy::{Attachment, BodyMode, BodyOf, Exchange, Failure, HookPlace, Instances, Reply};
use crate::snapshot::Frontend;

/// Filters a request's body, or answers what is sent instead of asking a server. Plugins see it in their order, each what the
/// one before made of it.
pub async fn of_request(
    local: &Rc<Local>,
    frontend: &Frontend,
    client: &Rc<Client>,
    exchange: &mut Box<Exchange>,
    body: &mut RequestBody,
) -> Result<Option<Reply>, ProxyError> {
    for attachment in frontend
        .plugins
        .iter()
        .filter(|plugin| plugin.hooks().request_body_filter)
    {
        let mode = heavy::ask(
            local,
            attachment,
            HookPlace::OnRequestBody,
            exchange,
            ask_of(BodyOf::Request),
        )
        .await?;
        let mode = match mode {
            Ok(mode) => mode,
            Err(failure) => {
                policy::failed(attachment, &failure)?;
                continue;
            }
        };
        let Some(way) = Way::of(local, attachment, BodyOf::Request, mode) else {
            continue;
        };
        let length = body.size_hint().exact();
        let come = |cx: &mut Context<'_>| {
            if client.turns.late() == Some(Late::Client) {
                return Poll::Ready(Err(ProxyError::ClientTimeout));
            }
            let frame = Pin::new(&mut *body).poll_frame(cx);
            frame.map(|frame| frame.transpose().map_err(ProxyError::from))
        };
        match way.settle(length, come).await? {
            Ok(filter) => body.filter(filter),
            Err(reply) => {
                exchange.replied = Some(attachment.clone());
                return Ok(Some(reply));
            }
        }
        say_length(&mut exchange.request.headers, body.size_hint().exact());
    }
    Ok(None)
}

/// Filters a response's body, or answers what is sent in its place. Plugins see it in the reverse of their order.
pub async fn of_response(
    local: &Rc<Local>,
    frontend: &Frontend,
    client: &Rc<Client>,
    exchange: &mut Box<Exchange>,
    lease: &mut Lease,
    response: &mut Response<Content>,
) -> Result<Result<BodyFilters, Reply>, ProxyError> {
    let mut filters = BodyFilters::default();
    let method = &exchange.request.method;
    let is_head = method == Method::HEAD;
    if !has_filtered_body(method, response.status(), response.body().is_end_stream()) {
        return Ok(Ok(filters));
    }
    let plugins = frontend.plugins.iter().rev();
    for attachment in plugins.filter(|plugin| plugin.hooks().response_body_filter) {
        // The head is lent to the exchange for the call.
        let head = std::mem::replace(response, Response::new(Content::None));
        let (head, content) = head.into_parts();
        exchange.response = Some(head);
        let mode = heavy::ask(
            local,
            attachment,
            HookPlace::OnResponseBody,
            exchange,
            ask_of(BodyOf::Response),
        )
        .await?;
        let Some(head) = exchange.response.take() else {
            return Err(ProxyError::Policy { status: 500 });
        };
        *response = Response::from_parts(head, content);
        let mode = match mode {
            Ok(mode) => mode,
            Err(failure) => {
                policy::failed(attachment, &failure)?;
                continue;
            }
        };
        let Some(way) = Way::of(local, attachment, BodyOf::Response, mode) else {
            continue;
        };
        if is_head {
            // What a GET would have been answered has another length, or none that is known.
            response.headers_mut().remove(header::CONTENT_LENGTH);
            continue;
        }
        lease.copy();
        let length = filters.left().or(response.body().size_hint().exact());
        let content = response.body_mut();
        let come = |cx: &mut Context<'_>| {
            if client.turns.late() == Some(Late::Server) {
                return Poll::Ready(Err(ProxyError::ServerTimeout));
            }
            if let Poll::Ready(why) = lease.poll_ended(cx) {
                return Poll::Ready(Err(why.into()));
            }
            let frame = filters.poll(cx, &mut |cx| lease.poll_body(content, cx));
            match frame {
                Poll::Pending => {
                    client.turns.await_server();
                    Poll::Pending
                }
                Poll::Ready(frame) => {
                    client.turns.server_moved();
                    let stopped = |error| match Stopped::of(&error) {
                        Some(stopped) => stopped.into(),
                        None => ProxyError::BadResponse,
                    };
                    Poll::Ready(frame.transpose().map_err(stopped))
                }
            }
        };
        match way.settle(length, come).await? {
            Ok(filter) => filters.push(filter),
            Err(reply) => {
                exchange.replied = Some(attachment.clone());
                return Ok(Err(reply));
            }
        }
        say_length(response.headers_mut(), filters.left());
    }
    Ok(Ok(filters))
}

/// Whether components are asked about a response's body: one that is there or, in answer to HEAD, would be (RFC 9110, 6.4.1).
pub fn has_filtered_body(method: &Method, status: StatusCode, is_empty: bool) -> bool {
    let is_bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    !is_bodiless && (!is_empty || method == Method::HEAD)
}

/// The hook that decides how a body is filtered.
fn ask_of(
    of: BodyOf,
) -> impl Fn(&mut Instances, &Arc<Attachment>, &mut Box<Exchange>) -> Result<BodyMode, Failure> + Send + 'static {
    move |instances, attachment, exchange| instances.on_body(attachment, of, exchange)
}

/// How a body goes by its filter.
struct Way {
    filter: Filter,
    of: BodyOf,
    waits: Waits,
}

/// What is waited for before the head goes on.
enum Waits {
    Nothing,
    Beginning,
    Whole { most: u64, or_skip: bool },
}

impl Way {
    /// None when it passes unseen.
    fn of(local: &Rc<Local>, attachment: &Arc<Attachment>, of: BodyOf, mode: BodyMode) -> Option<Self> {
        let waits = match mode {
            BodyMode::Skip => return None,
            BodyMode::Streamed => Waits::Nothing,
            BodyMode::Held => Waits::Beginning,
            BodyMode::Buffered { max, or_skip } => Waits::Whole {
                most: max.min(attachment.granted().max_body),
                or_skip,
            },
        };
        let is_held = !matches!(waits, Waits::Nothing);
        let filter = Filter::new(local, attachment, of, is_held);
        Some(Self { filter, of, waits })
    }

    /// Waits for what has to come before the head may go on, and hands it to the component.
    async fn settle(
        self,
        length: Option<u64>,
        mut come: impl FnMut(&mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, ProxyError>>,
    ) -> Result<Result<BodyFilter, Reply>, ProxyError> {
        let (most, or_skip) = match self.waits {
            Waits::Nothing => return Ok(Ok(BodyFilter::streamed(self.filter))),
            Waits::Beginning => (None, false),
            Waits::Whole { most, or_skip } => (Some(most), or_skip),
        };
        let too_long = |pieces| match (or_skip, self.of) {
            (true, _) => Ok(Ok(BodyFilter::unseen(pieces, length))),
            (false, BodyOf::Request) => Err(ProxyError::BodyTooLarge),
            (false, BodyOf::Response) => Err(ProxyError::InvalidResponse(RESPONSE_TOO_LARGE)),
        };
        if most.is_some_and(|most| length.is_some_and(|length| length > most)) {
            // Known beforehand: nothing is waited for.
            return too_long(VecDeque::new());
        }
        let (mut pieces, mut held) = (VecDeque::new(), 0);
        let mut memory = self.filter.host_memory();
        loop {
            let frame = poll_fn(&mut come).await?;
            let trailers = match frame.map(Frame::into_data) {
                Some(Ok(bytes)) => {
                    let Some(most) = most else {
                        return Ok(BodyFilter::begun(self.filter, bytes).await?);
                    };
                    held += bytes.len() as u64;
                    let more = bytes.len() + PIECE;
                    pieces.push_back(bytes);
                    if held > most {
                        return too_long(memory.with_all(pieces));
                    }
                    if let Err(full) = memory.grow(more) {
                        let (attachment, failure) = self.filter.is_not_held(&full);
                        policy::failed(attachment, &failure)?;
                        return Ok(Ok(BodyFilter::unseen(memory.with_all(pieces), length)));
                    }
                    continue;
                }
                Some(Err(frame)) => frame.into_trailers().ok(),
                None => None,
            };
            return Ok(BodyFilter::whole(self.filter, pieces, memory, trailers).await?);
        }
    }
}

/// A head says how long its body is by now, where that is known.
fn say_length(headers: &mut HeaderMap, length: Option<u64>) {
    match length {
        Some(length) => headers.insert(header::CONTENT_LENGTH, length.into()),
        None => headers.remove(header::CONTENT_LENGTH),
    };
}

/// Bytes that a piece of a body takes beside its own: who sends a body byte by byte has it held at that.
const PIECE: usize = 96;

/// What log lines say of a response whose body is longer than a component takes.
pub const RESPONSE_TOO_LARGE: &str = "response-body-too-large";

impl From<Stopped> for ProxyError {
    fn from(stopped: Stopped) -> Self {
        Self::Policy { status: stopped.status }
    }
}
