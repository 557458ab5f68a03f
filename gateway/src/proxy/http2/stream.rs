//! One stream: a request, its exchange, and its response on the way to the client.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;

use super::tunnel;
use crate::proxy::client::Client;
use crate::proxy::content::Content;
use crate::proxy::local::Local;
use crate::proxy::request;
use crate::proxy::response_body::ResponseBody;
use crate::proxy::rest::Rest;
use crate::proxy::turns::Late;
use crate::proxy::upgrade::Switch;
use crate::snapshot::Frontend;

/// A stream as its connection knows it.
pub struct Lane {
    /// Its exchange's client.
    pub client: Rc<Client>,
    task: RefCell<Option<Waker>>,
    knows_task: Cell<bool>,
}

impl Lane {
    /// A stream that begins.
    pub fn new(client: Rc<Client>) -> Rc<Self> {
        Rc::new(Self {
            client,
            task: RefCell::default(),
            knows_task: Cell::new(false),
        })
    }

    /// Lets the stream see that somebody was late.
    pub fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// In the set of its connection, a stream has the same waker all its life.
    fn note_task(&self, cx: &Context<'_>) {
        if !self.knows_task.replace(true) {
            *self.task.borrow_mut() = Some(cx.waker().clone());
        }
    }
}

/// Serves a stream until its response has been handed over whole, or somebody gives up. Answers with `slot`.
pub async fn serve(
    local: Rc<Local>,
    frontend: Arc<Frontend>,
    lane: Rc<Lane>,
    slot: usize,
    mut request: Request<Content>,
    mut respond: SendResponse<Bytes>,
) -> usize {
    let is_head = request.method() == Method::HEAD;
    let client = lane.client.clone();
    let tunneled = if tunnel::is_asked(&request) {
        tunnel::take_content(&mut request)
    } else {
        None
    };
    let switch = Switch::default();
    let response = {
        let mut served = pin!(request::serve(local, frontend, client.clone(), &switch, request));
        poll_fn(|cx| {
            lane.note_task(cx);
            if respond.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            let served = served.as_mut().poll(cx);
            while let Some(early) = client.take_informational() {
                let _ = respond.send_informational(early);
            }
            served.map(Some)
        })
        .await
    };
    let Some(Ok(response)) = response else { return slot };
    match (switch.take(), tunneled) {
        (Some(tunnel), Some(content)) => {
            // Boxed: most streams never come to this, and would have to keep the room for it.
            Box::pin(tunnel::join(
                &client,
                response.map(drop),
                *tunnel,
                content,
                &mut respond,
            ))
            .await;
        }
        _ => send(&client, response, is_head, &mut respond).await,
    }
    slot
}

async fn send(client: &Rc<Client>, response: Response<ResponseBody>, is_head: bool, respond: &mut SendResponse<Bytes>) {
    let (mut head, mut body) = response.into_parts();
    let is_empty = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let ends = is_head || is_empty || body.is_end_stream();
    if !ends
        && let Some(length) = body.size_hint().exact()
        && !head.headers.contains_key(header::CONTENT_LENGTH)
    {
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let Ok(mut stream) = respond.send_response(Response::from_parts(head, ()), ends) else {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return;
    };
    if !ends {
        let mut out = Out {
            client,
            stream,
            chunk: Bytes::new(),
        };
        if poll_fn(|cx| out.poll(cx, Pin::new(&mut body))).await == Sent::BrokenOff {
            // What came before goes out first, as far as the client takes it: the reset takes along what has not.
            tokio::task::yield_now().await;
            out.stream.send_reset(Reason::INTERNAL_ERROR);
        }
        stream = out.stream;
    }
    if let Some(rest) = body.into_rest() {
        // Boxed: most streams never come to this.
        Box::pin(take_rest(client, rest, stream)).await;
    }
}

/// Takes what the client sends yet. When nobody does any more, the stream is let go: the library tells the client to stop, and that
/// nothing is wrong (RFC 9113, section 8.1).
async fn take_rest(client: &Client, mut rest: Rest, mut stream: SendStream<Bytes>) {
    poll_fn(|cx| {
        let has_gone = stream.poll_reset(cx).is_ready() || client.turns.late() == Some(Late::Client);
        if has_gone { Poll::Ready(()) } else { rest.poll(cx) }
    })
    .await;
}

/// A response's content on its way out: no more of it than the client's windows have room for.
struct Out<'a> {
    client: &'a Rc<Client>,
    stream: SendStream<Bytes>,
    /// What has come and not gone out.
    chunk: Bytes,
}

/// How sending a response's content has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// There is nothing more to send, or nobody to send it to.
    Over,
    /// The rest does not come, and the client has not been told.
    BrokenOff,
}

impl Out<'_> {
    /// Ready when there is nothing more to send, or nobody to send it to.
    fn poll(&mut self, cx: &mut Context<'_>, mut body: Pin<&mut ResponseBody>) -> Poll<Sent> {
        // So that this task hears of it when the client gives up.
        if self.stream.poll_reset(cx).is_ready() {
            return Poll::Ready(Sent::Over);
        }
        let turns = &self.client.turns;
        loop {
            if !self.chunk.is_empty() {
                let room = self.stream.capacity();
                if room == 0 {
                    match self.stream.poll_capacity(cx) {
                        Poll::Ready(Some(Ok(_))) => continue,
                        Poll::Ready(_) => return Poll::Ready(Sent::Over),
                        Poll::Pending if turns.late() == Some(Late::Client) => return self.give_up(Reason::CANCEL),
                        Poll::Pending => {
                            // The client may be sending all the same, which is no taking.
                            body.as_mut().poll_request(cx);
                            turns.await_client();
                            return Poll::Pending;
                        }
                    }
                }
                let part = self.chunk.split_to(room.min(self.chunk.len()));
                let ends = self.chunk.is_empty() && body.is_end_stream();
                if self.stream.send_data(part, ends).is_err() || ends {
                    return Poll::Ready(Sent::Over);
                }
                turns.client_moved();
                continue;
            }
            match body.as_mut().poll_frame(cx) {
                Poll::Pending if turns.late() == Some(Late::Client) => return self.give_up(Reason::CANCEL),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => {
                        self.stream.reserve_capacity(data.len());
                        self.chunk = data;
                    }
                    Err(frame) => {
                        let Ok(trailers) = frame.into_trailers() else { continue };
                        self.stream.reserve_capacity(0);
                        let _ = self.stream.send_trailers(trailers);
                        return Poll::Ready(Sent::Over);
                    }
                },
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Sent::BrokenOff),
                Poll::Ready(None) => {
                    let _ = self.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(Sent::Over);
                }
            }
        }
    }

    fn give_up(&mut self, reason: Reason) -> Poll<Sent> {
        self.stream.send_reset(reason);
        Poll::Ready(Sent::Over)
    }
}
