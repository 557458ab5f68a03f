//! **log**, for components: exchanges that are over, and connections of TCP mode, wait here, off the path of what is under way,
//! until the worker has time to tell of them. What there is no room for is left out and counted.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use super::local::Lasting;
use super::{heavy, policy};
use crate::policy::{AskingPhase, Attachment, Exchange, HookPlace, Instances};

/// An exchange that components are told of when it is over.
pub struct ToTell {
    /// The exchange, as it was filtered.
    pub exchange: Box<Exchange>,
    /// The components that are told, in order.
    pub plugins: Arc<[Arc<Attachment>]>,
}

/// Exchanges that are over and have not been told of.
#[derive(Default)]
pub struct Untold {
    waiting: RefCell<VecDeque<ToTell>>,
    came: Notify,
    left_out: Cell<u64>,
    /// Held for each exchange that heavy components are being told of.
    heavy: Rc<()>,
}

impl Untold {
    /// One more is over.
    pub fn push(&self, over: ToTell) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= MAX_WAITING {
            self.left_out.set(self.left_out.get() + 1);
            return;
        }
        waiting.push_back(over);
        self.came.notify_one();
    }

    /// How many heavy components are being told of.
    pub fn under_way(&self) -> usize {
        Rc::strong_count(&self.heavy) - 1
    }

    /// How many were left out since this was last asked.
    pub fn take_left_out(&self) -> u64 {
        self.left_out.take()
    }
}

/// Tells components of what is over, one exchange at a time with others' turns in between. Ends with its worker.
pub async fn tell(lasting: Rc<Lasting>) {
    let untold = lasting.untold();
    loop {
        // Also while more comes than can be told of, and the queue is never empty.
        let left_out = untold.take_left_out();
        if left_out > 0 {
            lasting.registry().process().untold(left_out);
        }
        let next = untold.waiting.borrow_mut().pop_front();
        let Some(ToTell { mut exchange, plugins }) = next else {
            untold.came.notified().await;
            continue;
        };
        exchange.enters(AskingPhase::Log);
        let mut elsewhere = Vec::new();
        for attachment in plugins.iter() {
            let is_heavy = heavy::may_be_beside(attachment)
                && attachment.takes_part(&mut exchange)
                && heavy::is_beside(attachment, || {
                    exchange.keeps(attachment) || lasting.instances().has_ready(attachment)
                });
            if is_heavy && attachment.is_worth_waiting_for(HookPlace::OnLog) {
                elsewhere.push(attachment.clone());
                continue;
            }
            let mut tell = |instances: &mut Instances| instances.on_log(attachment, &mut exchange);
            let told = match is_heavy {
                true => lasting.instances().instead_of_crew(tell),
                false => tell(&mut lasting.instances()),
            };
            if let Err(failure) = told {
                // Counted and logged; there is no exchange left that it could cost anything.
                let _ = policy::failed(attachment, &failure);
            }
        }
        if !elsewhere.is_empty() {
            // Others do not wait for them. No more are under way than may wait for a thread.
            let untold = untold.heavy.clone();
            let telling = tell_elsewhere(lasting.clone(), exchange, elsewhere);
            tokio::task::spawn_local(async move {
                telling.await;
                drop(untold);
            });
        }
        tokio::task::yield_now().await;
    }
}

/// Tells heavy components of an exchange that is over, one after the other.
async fn tell_elsewhere(lasting: Rc<Lasting>, mut exchange: Box<Exchange>, heavy: Vec<Arc<Attachment>>) {
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
}

/// Exchanges of one worker that wait: some megabytes at most, and far fewer while a worker keeps up.
const MAX_WAITING: usize = 1024;
