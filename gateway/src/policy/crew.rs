//! Threads beside the workers, on which the calls of heavy and slow plugins run: those whose work would make a worker's other
//! requests wait.
//!
//! Each plugin's owner (a tenant, or the plugin itself where it is the operator's) has a lane, and the threads take one call of
//! each lane in turn: who sends much waits behind itself. Calls that wait are bounded for each use of a plugin, in number
//! and time; what is beyond that is not made. Threads begin with the first configuration that has a heavy plugin, and end when
//! nothing is left that could call one.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::attachment::Attachment;
use super::failure::{Failure, FailureKind};
use super::hook::INSTANTIATE;
use super::host::Host;
use super::instances::Instances;
use super::owner::Owner;
use super::priority::stand_back;
use crate::config::Heavy;

/// The threads, and what waits for them.
pub struct Crew {
    host: Arc<Host>,
    shared: Arc<Shared>,
}

/// A call as a thread of the crew makes it; without instances where it is not made, so that it can give back what it holds.
type Work = Box<dyn FnOnce(Option<&mut Instances>) + Send>;

/// What a use of a plugin has waiting.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) settings: Heavy,
    calls: AtomicUsize,
}

struct Shared {
    queue: Mutex<Queue>,
    came: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Those that have something, in the order of their turns.
    lanes: VecDeque<Lane>,
    threads: usize,
    /// Nobody will have anything called any more.
    is_over: bool,
}

struct Lane {
    owner: Owner,
    calls: VecDeque<Arc<Task>>,
    /// When there are so many, those that nobody waits for any more make room.
    sweep_at: usize,
}

/// A call that waits, or has been taken.
struct Task {
    attachment: Arc<Attachment>,
    work: Mutex<Option<Work>>,
}

impl Crew {
    /// No threads yet.
    #[must_use]
    pub fn new(host: &Arc<Host>) -> Arc<Self> {
        let shared = Shared {
            queue: Mutex::default(),
            came: Condvar::new(),
        };
        Arc::new(Self {
            host: Arc::clone(host),
            shared: Arc::new(shared),
        })
    }

    /// Sees to it that there are so many threads at least. They stay when a configuration wants fewer: its predecessor's last
    /// exchanges may need them, and one that has nothing to do costs nothing.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn ensure(&self, threads: usize) -> Result<(), Failure> {
        let mut queue = self.shared.queue();
        while queue.threads < threads {
            let (host, shared) = (Arc::clone(&self.host), Arc::clone(&self.shared));
            let thread = thread::Builder::new().name("policy".to_owned());
            let started = thread.spawn(move || {
                // Their requests are many, and short.
                if let Err(error) = stand_back() {
                    tracing::warn!(%error, "a thread of heavy plugins runs at the priority of the workers");
                }
                // What a defect of ours breaks is the one call.
                while catch_unwind(AssertUnwindSafe(|| run(&host, &shared))).is_err() {
                    tracing::error!("a thread of heavy plugins has failed, and begins anew");
                }
            });
            started.map_err(|error| Failure {
                kind: FailureKind::Instantiate,
                hook: INSTANTIATE.name,
                message: format!("no thread for heavy plugins: {error}"),
            })?;
            queue.threads += 1;
        }
        Ok(())
    }

    /// Has a thread of the crew make a call, and waits for what it comes to. Without instances the call is not made, as too many
    /// wait already, or this one has waited for too long. None when the thread has ended meanwhile.
    ///
    /// What nobody waits for any more is not begun.
    pub async fn call<T: Send + 'static>(
        &self,
        attachment: &Arc<Attachment>,
        call: impl FnOnce(Option<&mut Instances>) -> T + Send + 'static,
    ) -> Option<T> {
        let Some(waiting) = attachment.waiting().filter(|waiting| waiting.enter()) else {
            return Some(call(None));
        };
        let (send, mut answer) = oneshot::channel();
        let work = move |instances: Option<&mut Instances>| {
            // Who waited may have gone.
            let _ = send.send(call(instances));
        };
        let task = Waited(Arc::new(Task {
            attachment: Arc::clone(attachment),
            work: Mutex::new(Some(Box::new(work))),
        }));
        self.shared.push(attachment.owner(), &task.0);
        if let Ok(answer) = tokio::time::timeout(waiting.settings.wait, &mut answer).await {
            return answer.ok();
        }
        if let Some(work) = task.0.take() {
            work(None);
        }
        answer.await.ok()
    }
}

#[cfg(test)]
impl Crew {
    /// How many calls the longest lane holds, those included that have been given up.
    pub(super) fn longest_lane(&self) -> usize {
        let queue = self.shared.queue();
        queue.lanes.iter().map(|lane| lane.calls.len()).max().unwrap_or(0)
    }
}

impl Crew {
    /// Its threads end, each after what it is doing.
    pub(super) fn end(&self) {
        self.shared.queue().is_over = true;
        self.shared.came.notify_all();
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for Crew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let queue = self.shared.queue();
        f.debug_struct("Crew")
            .field("threads", &queue.threads)
            .finish_non_exhaustive()
    }
}

impl Waiting {
    pub(super) fn new(settings: Heavy) -> Self {
        Self {
            settings,
            calls: AtomicUsize::new(0),
        }
    }

    /// Calls that wait for a thread.
    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Takes a place, if there is one.
    fn enter(&self) -> bool {
        let is_free = |calls| (calls < self.settings.queue).then_some(calls + 1);
        self.calls
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_free)
            .is_ok()
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, owner: Owner, task: &Arc<Task>) {
        let mut queue = self.queue();
        let task = Arc::clone(task);
        match queue.lanes.iter_mut().find(|lane| lane.owner == owner) {
            Some(lane) => lane.push(task),
            None => queue.lanes.push_back(Lane {
                owner,
                calls: VecDeque::from([task]),
                sweep_at: SWEEP_AT,
            }),
        }
        drop(queue);
        self.came.notify_one();
    }

    /// What a thread does next: a call of the lane whose turn it is; [`Next::Tend`] when none has come for a while.
    fn next(&self) -> Next {
        let mut queue = self.queue();
        loop {
            if queue.is_over {
                return Next::End;
            }
            if let Some(mut lane) = queue.lanes.pop_front() {
                // What has been given up takes no turn.
                let work = std::iter::from_fn(|| lane.calls.pop_front()).find_map(|task| task.take());
                if !lane.calls.is_empty() {
                    queue.lanes.push_back(lane);
                }
                match work {
                    Some(work) => return Next::Call(work),
                    None => continue,
                }
            }
            let waited = self.came.wait_timeout(queue, UPKEEP);
            let (guard, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            queue = guard;
            if waited.timed_out() && queue.lanes.is_empty() && !queue.is_over {
                return Next::Tend;
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.queue().lanes.is_empty()
    }
}

impl Lane {
    fn push(&mut self, task: Arc<Task>) {
        if self.calls.len() >= self.sweep_at {
            self.calls.retain(|task| task.work().is_some());
            self.sweep_at = SWEEP_AT.max(2 * self.calls.len());
        }
        self.calls.push_back(task);
    }
}

enum Next {
    Call(Work),
    Tend,
    End,
}

impl Task {
    fn work(&self) -> MutexGuard<'_, Option<Work>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the call out of the queue, if nobody has.
    fn take(&self) -> Option<Work> {
        let work = self.work().take()?;
        if let Some(waiting) = self.attachment.waiting() {
            waiting.calls.fetch_sub(1, Ordering::Relaxed);
        }
        Some(work)
    }
}

/// A call that is given up when its waiter goes.
struct Waited(Arc<Task>);

impl Drop for Waited {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

/// A thread of the crew.
fn run(host: &Arc<Host>, shared: &Shared) {
    let mut instances = Instances::of_crew(host);
    let mut tended = Instant::now();
    loop {
        match shared.next() {
            Next::End => return,
            Next::Tend => {}
            Next::Call(work) => {
                work(Some(&mut instances));
                // At once: another thread may need their place.
                instances.drop_spent();
            }
        }
        if tended.elapsed() >= UPKEEP {
            tended = Instant::now();
            instances.upkeep();
        }
        // What is made ahead is for calls that come when there is time.
        while shared.is_idle() && instances.tend() {}
    }
}

/// How often a thread looks after its instances, and at least looks whether it is to end.
const UPKEEP: Duration = Duration::from_secs(1);

/// Fewer are not worth looking at.
const SWEEP_AT: usize = 64;
