//! **log**, for components: exchanges that are over, and connections of TCP mode, wait here, off the path of what is under way,
//! until the worker has time to tell of them. What there is no room for is left out and counted.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::local::Lasting;
use super::{heavy, policy};
use crate::policy::{AskingPhase, Attachment, HookPlace, Instances, LogQueue, ToTell};
use crate::snapshot::Snapshot;

/// What is over and components have not been told of.
#[derive(Default)]
pub struct Untold {
    queue: RefCell<LogQueue>,
    came: Notify,
    /// Held for each exchange that heavy components are being told of.
    heavy: Rc<()>,
}

impl Untold {
    /// Has something wait for the next owner whose components are to be told of it.
    pub fn push(&self, over: ToTell) {
        if self.queue.borrow_mut().push(over) {
            self.came.notify_one();
        }
    }

    /// From now on this configuration's owners have their parts of the room.
    pub fn keep_for(&self, snapshot: &Snapshot) {
        let told = snapshot.frontends.iter().flat_map(|frontend| frontend.told.iter());
        self.queue.borrow_mut().keep_for(told);
    }

    /// How many heavy components are being told of.
    pub fn under_way(&self) -> usize {
        Rc::strong_count(&self.heavy) - 1
    }
}

/// Tells components of what is over, those of one owner of one exchange at a time. Ends with its worker.
pub async fn tell(lasting: Rc<Lasting>) {
    let untold = lasting.untold();
    loop {
        let next = untold.queue.borrow_mut().take();
        let Some((turn, mut over)) = next else {
            untold.came.notified().await;
            continue;
        };
        let (elsewhere, took) = tell_here(&lasting, &mut over).await;
        untold.queue.borrow_mut().end(&turn, took);
        if elsewhere.is_empty() {
            untold.push(over);
        } else {
            // Others do not wait for them. No more are under way than may wait for a thread.
            let under_way = untold.heavy.clone();
            let lasting = lasting.clone();
            tokio::task::spawn_local(async move {
                tell_elsewhere(lasting, over, elsewhere).await;
                drop(under_way);
            });
            tokio::task::yield_now().await;
        }
    }
}

/// Tells the components whose turn it is, with others' turns in between, but for those that others than the worker call. Answers these, and
/// how long it took.
async fn tell_here(lasting: &Lasting, over: &mut ToTell) -> (Vec<Arc<Attachment>>, Duration) {
    let (mut elsewhere, mut took) = (Vec::new(), Duration::ZERO);
    let (exchange, plugins) = over.parts();
    exchange.enters(AskingPhase::Log);
    for attachment in plugins {
        let begun = Instant::now();
        let is_heavy = heavy::may_be_beside(attachment)
            && attachment.takes_part(exchange)
            && heavy::is_beside(attachment, || {
                exchange.keeps(attachment) || lasting.instances().has_ready(attachment)
            });
        if is_heavy && attachment.is_worth_waiting_for(HookPlace::OnLog) {
            elsewhere.push(attachment.clone());
            continue;
        }
        let mut tell = |instances: &mut Instances| instances.on_log(attachment, exchange);
        let told = match is_heavy {
            true => lasting.instances().instead_of_crew(tell),
            false => tell(&mut lasting.instances()),
        };
        if let Err(failure) = told {
            // Counted and logged; there is no exchange left that it could cost anything.
            let _ = policy::failed(attachment, &failure);
        }
        took += begun.elapsed();
        tokio::task::yield_now().await;
    }
    (elsewhere, took)
}

/// Tells heavy components of what is over, one after the other, and has it wait for the next owner then.
async fn tell_elsewhere(lasting: Rc<Lasting>, over: ToTell, heavy: Vec<Arc<Attachment>>) {
    let (mut exchange, rest) = over.taken_apart();
    for attachment in &heavy {
        let asked = attachment.clone();
        let call = move |instances: Option<&mut Instances>| {
            let told = instances.map(|instances| instances.on_log(&asked, &mut exchange));
            (told, exchange)
        };
        let Some((told, back)) = lasting.crew().call(attachment, call).await else {
            return;
        };
        exchange = back;
        if told.is_none() {
            // A failure is logged and counted.
            let _ = lasting
                .instances()
                .instead_of_crew(|instances| instances.on_log(attachment, &mut exchange));
        }
    }
    lasting.untold().push(rest.of(exchange));
}
