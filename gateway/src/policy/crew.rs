//! Threads beside the workers, on which the calls of heavy and slow plugins run: those whose work would make a worker's other
//! requests wait.
//!
//! Each plugin's owner (a tenant, or the plugin itself where it is the operator's) has a lane, and lanes share the threads' CPU
//! time (`lanes.rs`): whoever sends much, or what takes long, waits behind himself, and one thread of several is for those who have none. Calls that wait are bounded for each use of a
//! plugin, in number and time; what is beyond that is not made. Threads begin with the first configuration that has a heavy
//! plugin, and end when nothing is left that could call one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::attachment::Attachment;
use super::cpu::thread_cpu_time;
use super::failure::{Failure, FailureKind};
use super::hook::INSTANTIATE;
use super::host::Host;
use super::instances::Instances;
use super::lanes::{Lanes, Threads, Turn};
use super::made_beside::Awaited;
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
    lanes: Lanes<Arc<Task>>,
    threads: usize,
    /// All that may come to wait is one owner's.
    is_of_one: bool,
    /// Nobody will have anything called any more.
    is_over: bool,
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
            started.map_err(|error| {
                let message = format!("no thread for heavy plugins: {error}");
                Failure::new(FailureKind::Instantiate, INSTANTIATE.name, message)
            })?;
            queue.threads += 1;
        }
        Ok(())
    }

    /// From now on it is called for these alone, and for what those before them have begun. Where they are all one owner's, that one
    /// may have all threads. A plugin of the operator's that may turn out to be slow keeps no thread from others before it does.
    pub fn serve(&self, attachments: &[Arc<Attachment>]) {
        let is_expected = |attachment: &&Arc<Attachment>| {
            attachment.is_heavy() || attachment.may_be_heavy() && attachment.tenant().is_some()
        };
        let called = attachments.iter().filter(is_expected);
        let mut owners = called.map(|attachment| attachment.owner());
        let first = owners.next();
        self.shared.queue().is_of_one = owners.all(|owner| Some(&owner) == first.as_ref());
        self.shared.came.notify_all();
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
        self.shared.push(&task.0);
        if let Ok(answer) = tokio::time::timeout(waiting.settings.wait, &mut answer).await {
            return answer.ok();
        }
        if let Some(work) = task.0.take() {
            work(None);
        }
        answer.await.ok()
    }
}

impl Crew {
    /// Has a thread of the crew make an instance for a worker, in its turn. Where half as many wait as may, none is made: calls go
    /// before what is made ahead of them.
    pub(super) fn make(&self, attachment: &Arc<Attachment>, awaited: Awaited) {
        if !attachment.waiting().is_some_and(Waiting::enter_ahead) {
            return;
        }
        let asked = Arc::clone(attachment);
        let work = move |instances: Option<&mut Instances>| {
            let mut awaited = awaited;
            awaited.instance = instances.and_then(|instances| instances.make_for_another(&asked));
        };
        let task = Arc::new(Task {
            attachment: Arc::clone(attachment),
            work: Mutex::new(Some(Box::new(work))),
        });
        self.shared.push(&task);
    }
}

#[cfg(test)]
impl Crew {
    /// How many calls the longest lane holds, those included that have been given up.
    pub(super) fn longest_lane(&self) -> usize {
        self.shared.queue().lanes.longest()
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
        self.enter_within(self.settings.queue)
    }

    /// Takes one for what nobody waits for.
    fn enter_ahead(&self) -> bool {
        self.enter_within(self.settings.queue.div_ceil(2))
    }

    fn enter_within(&self, most: usize) -> bool {
        let is_free = |calls| (calls < most).then_some(calls + 1);
        self.calls
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_free)
            .is_ok()
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, task: &Arc<Task>) {
        let owner = task.attachment.owner();
        let mut queue = self.queue();
        queue.lanes.push(owner, Arc::clone(task), |task| task.work().is_some());
        drop(queue);
        self.came.notify_one();
    }

    /// What a thread does next: a call of the lane whose turn it is; [`Next::Tend`] when none has come for a while.
    fn next(&self) -> Next {
        let mut queue = self.queue();
        let mut has_waited = false;
        loop {
            if queue.is_over {
                return Next::End;
            }
            let threads = queue.threads();
            if let Some((turn, work)) = queue.lanes.take(threads, |task| task.take()) {
                return Next::Call(turn, work);
            }
            if has_waited {
                return Next::Tend;
            }
            let waited = self.came.wait_timeout(queue, UPKEEP);
            let (guard, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            queue = guard;
            has_waited = waited.timed_out();
        }
    }

    fn is_idle(&self) -> bool {
        let queue = self.queue();
        queue.lanes.is_idle(queue.threads())
    }
}

impl Queue {
    fn threads(&self) -> Threads {
        match self.is_of_one {
            true => Threads::OfOne,
            false => Threads::Shared(self.threads),
        }
    }
}

enum Next {
    Call(Turn, Work),
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

/// A turn that a thread has. Its lane is charged with what it takes, however it ends.
struct Charged<'a> {
    shared: &'a Shared,
    turn: Turn,
    since: Duration,
}

impl<'a> Charged<'a> {
    fn begin(shared: &'a Shared, turn: Turn) -> Self {
        Self {
            shared,
            turn,
            since: thread_cpu_time(),
        }
    }
}

impl Drop for Charged<'_> {
    fn drop(&mut self) {
        let took = thread_cpu_time().saturating_sub(self.since);
        self.shared.queue().lanes.end(&self.turn, took);
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
            Next::Call(turn, work) => {
                let _charged = Charged::begin(shared, turn);
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
