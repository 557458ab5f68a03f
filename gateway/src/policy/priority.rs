//! Threads that stand behind the workers: how much of a CPU they get beside one, and when they give way to it.
//!
//! Niceness says how much, in the long run, and not when: a scheduler that lets whoever runs finish his slice has a worker
//! that wakes up wait for it, for milliseconds (Linux's since 6.6, with slices of 0.7 to 2.8 ms by the number of CPUs). Since
//! 6.12 a thread may say how long its slices are (`sched_runtime` of sched_setattr(2)), and whoever has shorter ones goes first
//! when he wakes up. So threads that stand back ask for longer ones than anybody has: no worker waits for them, and they get
//! their part all the same, in larger pieces. Older kernels take the niceness and overlook the rest.

use std::io;

/// The calling thread stands back from now on, and so do the threads that it starts.
///
/// # Errors
/// When the system does not allow it; the thread's priority is as it was then.
pub(super) fn stand_back() -> io::Result<()> {
    let size = size_of::<libc::sched_attr>();
    let attributes = libc::sched_attr {
        size: u32::try_from(size).map_err(io::Error::other)?,
        sched_policy: u32::try_from(libc::SCHED_OTHER).map_err(io::Error::other)?,
        sched_flags: 0,
        sched_nice: NICE,
        sched_priority: 0,
        sched_runtime: SLICE,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: sched_setattr(2) reads `size` bytes of a `sched_attr`, which are there until it returns, and writes none.
    #[allow(unsafe_code, reason = "neither rustix nor nix has this call")]
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, THIS_THREAD, &raw const attributes, NO_FLAGS) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A tenth of a worker's part of a CPU that both want; all of one that nobody else wants.
const NICE: i32 = 10;

/// Nanoseconds: more than the 2.8 ms that the default comes to at most. Measured on one CPU beside a thread that works for 5 ms at
/// a time, what works 60 us each 0.7 ms woke up 0.12 ms late in one of ten cases, where it was 2.5 ms with the default; with
/// 4 ms it was so only now and then, and with 100 ms (the most that is taken) no better.
const SLICE: u64 = 10_000_000;

const THIS_THREAD: libc::pid_t = 0;
const NO_FLAGS: libc::c_uint = 0;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_that_stands_back_is_nice_and_the_others_are_not() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let told = thread::spawn(move || {
            stand_back().unwrap();
            (nice(), thread::spawn(nice).join().unwrap())
        });
        assert_eq!(told.join().unwrap(), (NICE, NICE));
        assert_eq!(nice(), before);
    }
}
