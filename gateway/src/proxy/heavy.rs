//! Hooks of heavy and slow plugins: they are called by threads beside the workers, and what they are asked about goes there
//! and comes back. Hooks of all others are called where the exchange is, and so are those of the operator's slow plugins that no
//! thread has had time for.

use std::rc::Rc;
use std::sync::Arc;

use super::error::ProxyError;
use super::local::Local;
use crate::policy::{Attachment, ConnectionFacts, ConnectionVerdict, Crew, Exchange, Failure, HookPlace, Instances};

/// Calls a hook about an exchange.
///
/// # Errors
/// The outer one: what the exchange was is gone, by a defect of ours.
pub fn ask<T: Send + 'static>(
    local: &Rc<Local>,
    attachment: &Arc<Attachment>,
    place: HookPlace,
    exchange: &mut Box<Exchange>,
    hook: impl Fn(&mut Instances, &Arc<Attachment>, &mut Box<Exchange>) -> Result<T, Failure> + Send + 'static,
) -> impl Future<Output = Result<Result<T, Failure>, ProxyError>> {
    if let Some(phase) = place.phase() {
        exchange.enters(phase);
    }
    ask_in_any_phase(local, attachment, place, exchange, hook)
}

/// The same of an exchange that may have come further than the hook's phase: what is answered in a server's place is edited last.
///
/// # Errors
/// As [`ask`].
pub async fn ask_in_any_phase<T: Send + 'static>(
    local: &Rc<Local>,
    attachment: &Arc<Attachment>,
    place: HookPlace,
    exchange: &mut Box<Exchange>,
    hook: impl Fn(&mut Instances, &Arc<Attachment>, &mut Box<Exchange>) -> Result<T, Failure> + Send + 'static,
) -> Result<Result<T, Failure>, ProxyError> {
    if may_be_beside(attachment)
        && attachment.takes_part(exchange)
        && is_beside(attachment, || {
            exchange.keeps(attachment) || local.instances().has_ready(attachment)
        })
    {
        // Boxed: few plugins are heavy.
        return Box::pin(ask_elsewhere(local, attachment, place, exchange, hook)).await;
    }
    Ok(hook(&mut local.instances(), attachment, exchange))
}

/// Whether a call of it may have to be made beside the workers.
#[inline]
pub fn may_be_beside(attachment: &Attachment) -> bool {
    attachment.is_heavy() || attachment.is_set_up_beside()
}

/// Whether it has: calls are heavy or slow, or the worker has no instance and would be slow to make one.
pub fn is_beside(attachment: &Attachment, has_one: impl FnOnce() -> bool) -> bool {
    attachment.is_heavy() || (attachment.is_set_up_beside() && !has_one())
}

async fn ask_elsewhere<T: Send + 'static>(
    local: &Rc<Local>,
    attachment: &Arc<Attachment>,
    place: HookPlace,
    exchange: &mut Box<Exchange>,
    hook: impl Fn(&mut Instances, &Arc<Attachment>, &mut Box<Exchange>) -> Result<T, Failure> + Send + 'static,
) -> Result<Result<T, Failure>, ProxyError> {
    if !attachment.is_worth_waiting_for(place) {
        return Ok(local
            .instances()
            .instead_of_crew(|instances| hook(instances, attachment, exchange)));
    }
    let stand_in = exchange.stand_in(attachment);
    let mut away = std::mem::replace(exchange, stand_in);
    let asked = attachment.clone();
    let call = move |instances: Option<&mut Instances>| {
        let answered = instances.map(|instances| hook(instances, &asked, &mut away));
        (answered, away, hook)
    };
    let (answered, back, hook) = wait(local.crew(), attachment, call).await?;
    *exchange = back;
    Ok(match answered {
        Some(answered) => answered,
        None => local
            .instances()
            .instead_of_crew(|instances| hook(instances, attachment, exchange)),
    })
}

/// Calls the hook about a connection.
///
/// # Errors
/// As [`ask`].
pub async fn ask_about(
    local: &Rc<Local>,
    attachment: &Arc<Attachment>,
    facts: &Arc<ConnectionFacts>,
) -> Result<Result<ConnectionVerdict, Failure>, ProxyError> {
    if !is_beside(attachment, || local.instances().has_ready(attachment)) {
        return Ok(local.instances().on_connect(attachment, facts));
    }
    if attachment.is_worth_waiting_for(HookPlace::OnConnect) {
        let (asked, facts) = (attachment.clone(), facts.clone());
        let call = move |instances: Option<&mut Instances>| Some(instances?.on_connect(&asked, &facts));
        if let Some(answered) = Box::pin(wait(local.crew(), attachment, call)).await? {
            return Ok(answered);
        }
    }
    Ok(local
        .instances()
        .instead_of_crew(|instances| instances.on_connect(attachment, facts)))
}

/// Has a call made beside the workers.
pub async fn wait<T: Send + 'static>(
    crew: &Crew,
    attachment: &Arc<Attachment>,
    call: impl FnOnce(Option<&mut Instances>) -> T + Send + 'static,
) -> Result<T, ProxyError> {
    let lost = ProxyError::Policy { status: 500 };
    crew.call(attachment, call).await.ok_or(lost)
}
