//! The way of one request through the proxy.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::body::{self, Broken, ReplyBody};
use super::faults::{Answer, At, Fault};
use super::journal::Stage;
use super::link::Lever;
use super::rules::RuleId;
use super::upstream::Upstream;
use super::{Shared, request};
use crate::write_count::{Request as Asked, Verb};

/// Headers that belong to one connection (RFC 9110, 7.6.1).
const HOP_BY_HOP: [header::HeaderName; 5] =
    [header::CONNECTION, header::TE, header::TRAILER, header::TRANSFER_ENCODING, header::UPGRADE];
/// What Go clients ask for first, and what they are sent in place of it where events must be told apart.
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON: &str = "application/json";

/// All that the requests of one connection need.
pub(super) struct Forward {
    shared: Arc<Shared>,
    upstream: Upstream,
    lever: Arc<Lever>,
    user: String,
    http2: bool,
    upgrading: AtomicBool,
}

/// The journal's entry of a request that is under way. One that is dropped has got no answer.
struct Ticket {
    shared: Arc<Shared>,
    number: usize,
    /// The rule that it has met.
    rule: Option<RuleId>,
    answered: bool,
}

impl Ticket {
    fn upstream(&self, code: StatusCode) {
        self.shared.change(self.number, |entry| entry.upstream = code.as_u16());
    }

    fn held(&self, at: At) {
        self.shared.change(self.number, |entry| entry.stage = Stage::Held(at));
    }

    /// The client is told `code`, and has been when all of `body` has been taken.
    fn answer(mut self, code: StatusCode, body: ReplyBody) -> ReplyBody {
        self.answered = true;
        self.shared.change(self.number, |entry| {
            entry.stage = Stage::Answered;
            entry.ended = Some(Instant::now());
            entry.request.code = code.as_u16();
        });
        body::then(body, move || self.shared.change(self.number, |entry| entry.stage = Stage::Done))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.answered {
            self.shared.change(self.number, |entry| {
                entry.stage = Stage::Broken;
                entry.ended = Some(Instant::now());
            });
        }
    }
}

impl Forward {
    pub(super) fn new(
        shared: Arc<Shared>,
        upstream: Upstream,
        lever: Arc<Lever>,
        user: String,
        http2: bool,
    ) -> Self {
        Self { shared, upstream, lever, user, http2, upgrading: AtomicBool::new(false) }
    }

    /// Whether a request of the connection asks for another protocol.
    pub(super) fn is_upgrading(&self) -> bool {
        self.upgrading.load(Ordering::Acquire)
    }

    /// One request. An error breaks the connection, or with HTTP/2 the stream.
    pub(super) async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<ReplyBody>, Broken> {
        if request.headers().contains_key(header::UPGRADE) {
            return self.upgrade(request).await;
        }
        let (mut head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        HOP_BY_HOP.iter().for_each(|name| drop(head.headers.remove(name)));
        head.headers.remove(header::ACCEPT_ENCODING);
        let asked = request::read(&head.method, &head.uri, &head.headers, &body, &self.user);
        if asked.verb == Verb::Watch {
            ask_for_json(&mut head.headers);
        }
        let (ticket, met) = self.begin(asked.clone());
        let forwarded = Request::from_parts(head, Full::new(body));
        self.meet(forwarded, &asked, ticket, met).await
    }

    fn begin(&self, asked: Asked) -> (Ticket, Option<(Fault, u64)>) {
        let (number, met) = self.shared.begin(asked, self.http2);
        let rule = met.as_ref().map(|(rule, ..)| *rule);
        let ticket = Ticket { shared: Arc::clone(&self.shared), number, rule, answered: false };
        (ticket, met.map(|(_, fault, nth)| (fault, nth)))
    }

    async fn meet(
        &self,
        request: Request<Full<Bytes>>,
        asked: &Asked,
        ticket: Ticket,
        met: Option<(Fault, u64)>,
    ) -> Result<Response<ReplyBody>, Broken> {
        let change: Box<dyn FnOnce(ReplyBody) -> ReplyBody + Send> = match met {
            None => return self.pass(request, asked, ticket).await,
            Some((Fault::Delay(latency), nth)) => {
                tokio::time::sleep(latency.of(nth)).await;
                return self.pass(request, asked, ticket).await;
            }
            Some((Fault::DelayAnswer(latency), nth)) => {
                let answer = self.pass(request, asked, ticket).await?;
                tokio::time::sleep(latency.of(nth)).await;
                return Ok(answer);
            }
            Some((Fault::Refuse(answer), _)) => return Ok(refusal(&answer, ticket)),
            Some((Fault::Replace(answer), _)) => {
                self.commit(request, &ticket).await?;
                return Ok(refusal(&answer, ticket));
            }
            Some((Fault::Reset(at), _)) => {
                match at {
                    At::BeforeSend => {}
                    At::AfterCommit => self.commit(request, &ticket).await?,
                }
                self.lever.reset();
                return pending().await;
            }
            Some((Fault::Hold(at), _)) => {
                match at {
                    At::BeforeSend => {}
                    At::AfterCommit => self.commit(request, &ticket).await?,
                }
                ticket.held(at);
                return pending().await;
            }
            Some((Fault::HoldUntilRemoved, _)) => {
                ticket.held(At::BeforeSend);
                if let Some(rule) = ticket.rule {
                    self.shared.removed(rule).await;
                }
                return self.pass(request, asked, ticket).await;
            }
            Some((Fault::Silence, _)) => {
                let (head, body) = self.send(request, &ticket).await?;
                let body = ticket.answer(head.status, body::silent(body));
                return Ok(Response::from_parts(head, body));
            }
            Some((Fault::ResetBody { after }, _)) => {
                let lever = Arc::clone(&self.lever);
                Box::new(move |body| body::first(body, after, Some(lever)))
            }
            Some((Fault::CutBody { after }, _)) => Box::new(move |body| body::first(body, after, None)),
            Some((Fault::Trickle { bytes, every }, _)) => {
                Box::new(move |body| body::trickle(body, bytes, every))
            }
        };
        let (mut head, body) = self.send(request, &ticket).await?;
        // Its length is no longer what the API server said.
        head.headers.remove(header::CONTENT_LENGTH);
        let body = ticket.answer(head.status, change(body::passing(body)));
        Ok(Response::from_parts(head, body))
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
        ticket: &Ticket,
    ) -> Result<(http::response::Parts, Incoming), Broken> {
        let (mut head, body) = self.upstream.send(request).await?.into_parts();
        HOP_BY_HOP.iter().for_each(|name| drop(head.headers.remove(name)));
        ticket.upstream(head.status);
        Ok((head, body))
    }

    /// Sends it and reads all of the reply, for nobody.
    async fn commit(&self, request: Request<Full<Bytes>>, ticket: &Ticket) -> Result<(), Broken> {
        let (_, body) = self.send(request, ticket).await?;
        body.collect().await?;
        Ok(())
    }

    async fn pass(
        &self,
        request: Request<Full<Bytes>>,
        asked: &Asked,
        ticket: Ticket,
    ) -> Result<Response<ReplyBody>, Broken> {
        let (head, body) = self.send(request, &ticket).await?;
        let body = if asked.verb == Verb::Watch && head.status.is_success() {
            body::watch(body, asked.clone(), Arc::clone(&self.shared))
        } else {
            body::passing(body)
        };
        Ok(Response::from_parts(head.clone(), ticket.answer(head.status, body)))
    }

    /// Passes on a request for another protocol; what is spoken after it is not looked at.
    async fn upgrade(&self, mut request: Request<Incoming>) -> Result<Response<ReplyBody>, Broken> {
        self.upgrading.store(true, Ordering::Release);
        let of_client = hyper::upgrade::on(&mut request);
        let (head, _) = request.into_parts();
        let asked = request::read(&head.method, &head.uri, &head.headers, &[], &self.user);
        let (ticket, _) = self.begin(asked);
        let mut reply = self.upstream.send(Request::from_parts(head, Full::default())).await?;
        ticket.upstream(reply.status());
        if reply.status() == StatusCode::SWITCHING_PROTOCOLS {
            let of_server = hyper::upgrade::on(&mut reply);
            let lever = Arc::clone(&self.lever);
            tokio::spawn(async move {
                let both = async {
                    let (client, server) = (of_client.await?, of_server.await?);
                    tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server))
                        .await?;
                    anyhow::Ok(())
                };
                tokio::select! {
                    () = lever.is_reset() => {}
                    ended = both => if let Err(error) = ended {
                        tracing::debug!("an upgraded connection broke: {error:#}");
                    }
                }
            });
        }
        let (head, body) = reply.into_parts();
        let body = ticket.answer(head.status, body::passing(body));
        Ok(Response::from_parts(head, body))
    }
}

fn refusal(answer: &Answer, ticket: Ticket) -> Response<ReplyBody> {
    let mut response = Response::new(ticket.answer(answer.code, body::full(answer.status())));
    *response.status_mut() = answer.code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    if let Some(seconds) = answer.retry_after_seconds {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Has the API server answer in JSON.
fn ask_for_json(headers: &mut HeaderMap) {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let json = accepted.map(|accepted| accepted.replace(PROTOBUF, JSON));
    if let Some(value) = json.and_then(|json| HeaderValue::from_str(&json).ok()) {
        headers.insert(header::ACCEPT, value);
    }
}
