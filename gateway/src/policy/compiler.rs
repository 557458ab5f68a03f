//! Compiling what strangers have written, in a process of its own.
//!
//! A few kilobytes of WebAssembly can be written so that they take minutes and gigabytes to compile: the compiler's work grows
//! with the square of a function's blocks, of their parameters, of how deep they nest. Nobody knows all that there is of the kind,
//! so nothing is counted beforehand: the system bounds what the compiler may use, and one that wants more ends alone. It has a
//! lower priority than the gateway, so that traffic goes first. Where it gets so little of a processor that its CPU time would never be
//! used up, the clock on the wall ends it.
//!
//! The other process is this program again, told to [`serve`]. It knows the engine's settings, reads the component and writes
//! the machine code, which is as good as if it had been made here: whoever could make the compiler write something else could do
//! so within the gateway, too.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::component::MAX_COMPONENT_BYTES;
use super::engine::compiling_engine;
use super::failure::one_line;
use super::priority::stand_back;
use crate::config::CompileLimits;

/// Why there is no machine code.
#[derive(Debug, Clone)]
pub enum CompileError {
    /// The engine could not be built.
    Engine(String),
    /// So many bytes are more than are taken.
    TooLarge(usize),
    /// The engine does not take the component, and says why.
    Refused(String),
    /// It was compiled, and the system does not let that be run.
    NotExecutable(String),
    /// It takes more time or memory than it may.
    TooMuch(String),
    /// It comes to more machine code than so many bytes, which is more than is taken.
    TooMuchCode(u64),
    /// The other process could not do its work.
    Broken(String),
}

/// The word by which this program is told to [`serve`].
pub const COMMAND: &str = "compile-component";

/// What the other process is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileRequest {
    /// Address space of each memory, in bytes: the only setting of the engine that decides what its code looks like and is not the
    /// same always.
    pub reservation: u64,
    /// What it may use.
    pub limits: CompileLimits,
}

/// From now on components are compiled by another process of this program: `main` has said that it knows the [`COMMAND`].
/// Without that, in a program that is not the gateway, they are compiled where they are asked for.
pub fn compile_apart() {
    APART.store(true, Ordering::Relaxed);
}

static APART: AtomicBool = AtomicBool::new(false);

/// Machine code of a component, in a process of its own where there can be one; and the CPU time that it took.
pub(super) fn compile(
    engine: &Engine,
    reservation: u64,
    limits: CompileLimits,
    wasm: &[u8],
) -> (Result<Component, CompileError>, Duration) {
    let without_limits = || {
        let begun = Instant::now();
        (here(engine, wasm), begun.elapsed())
    };
    if !APART.load(Ordering::Relaxed) || no_component(wasm).is_some() {
        return without_limits();
    }
    let request = CompileRequest { reservation, limits };
    let child = match request.command(PROGRAM).spawn() {
        Ok(child) => child,
        // Whoever has locked himself in has left the program outside.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::warn!("{PROGRAM} is not there: a component is compiled without limits on what that takes");
            return without_limits();
        }
        Err(error) => {
            let broken = CompileError::Broken(format!("the compiler does not start: {error}"));
            return (Err(broken), Duration::ZERO);
        }
    };
    match request.ask(child, wasm, MAX_CODE) {
        Ok((code, took)) => (loaded(engine, &code), took),
        Err((error, took)) => (Err(error), took),
    }
}

/// What a file is that does not even begin as a component does: the engine says that in numbers.
fn no_component(wasm: &[u8]) -> Option<&'static str> {
    match wasm {
        [] => Some("the file is empty"),
        [b'\0', b'a', b's', b'm', 1, 0, 0, 0, ..] => Some("it is a module, not a component"),
        [b'\0', b'a', b's', b'm', ..] => None,
        _ => Some("it is not WebAssembly"),
    }
}

fn loaded(engine: &Engine, code: &[u8]) -> Result<Component, CompileError> {
    // SAFETY: these are bytes that this very program has just written for this engine: the child runs what /proc/self/exe is, and
    // nobody else holds the other end of its pipe. The engine checks that version and settings are its own.
    #[allow(unsafe_code, reason = "machine code that this gateway compiled itself; see above")]
    let component = unsafe { Component::deserialize(engine, code) };
    component.map_err(|error| refused(&error))
}

/// The same in this process.
pub(super) fn here(engine: &Engine, wasm: &[u8]) -> Result<Component, CompileError> {
    match no_component(wasm) {
        Some(said) => Err(CompileError::Refused(said.to_owned())),
        None => Component::from_binary(engine, wasm).map_err(|error| refused(&error)),
    }
}

/// Whose fault it is. The engine has words for it, and nothing else.
fn refused(error: &wasmtime::Error) -> CompileError {
    let said = format!("{error:#}");
    match said.contains("make memory executable") {
        true => CompileError::NotExecutable(said),
        false => CompileError::Refused(said),
    }
}

impl CompileRequest {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .arg(COMMAND)
            .arg(self.reservation.to_string())
            .arg(seconds(self.limits.cpu).to_string())
            .arg(self.limits.memory.to_string())
            .env_clear()
            // Else the allocator asks for a gigabyte at once, which counts although nobody has used it.
            .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
            .env("RAYON_NUM_THREADS", threads().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command
    }

    /// Hands the component over and waits for the code, of which so many bytes are taken; and how much CPU time there was to it. One
    /// that did not come to an answer is taken to have used all that it might.
    fn ask(&self, mut child: Child, wasm: &[u8], most: u64) -> Result<(Vec<u8>, Duration), (CompileError, Duration)> {
        let all = self.limits.cpu;
        let within = all.saturating_mul(PATIENCE).max(LEAST_PATIENCE);
        let said = hear(&mut child, wasm, within, most + TOOK as u64);
        if said.is_err() {
            // It may be waiting for somebody to read on.
            let _ = child.kill();
        }
        let broken = |error: io::Error| CompileError::Broken(format!("the compiler is not heard: {error}"));
        let ended = child.wait().map_err(|error| (broken(error), all))?;
        let mut said = said.map_err(|unheard| {
            let error = match unheard {
                Unheard::Broken(error) => broken(error),
                Unheard::Late => CompileError::TooMuch(format!("compiling it takes longer than {within:?}")),
                Unheard::TooMuch => CompileError::TooMuchCode(most),
            };
            (error, all)
        })?;
        let took = said.split_off(said.len().saturating_sub(TOOK));
        let took = took
            .try_into()
            .map_or(all, |took| Duration::from_micros(u64::from_le_bytes(took)));
        match ended.code() {
            Some(0) => Ok((said, took)),
            Some(REFUSED) => Err((CompileError::Refused(one_line(&String::from_utf8_lossy(&said))), took)),
            _ => Err((self.failed(ended), all)),
        }
    }

    /// What became of a process that did not come to an answer.
    fn failed(&self, ended: ExitStatus) -> CompileError {
        let CompileLimits { cpu, memory } = self.limits;
        match ended.signal() {
            Some(signal) if signal == Signal::XCPU.as_raw() => {
                CompileError::TooMuch(format!("compiling it takes more than {cpu:?} of CPU time"))
            }
            // An allocation that fails ends the process.
            Some(signal) if signal == Signal::ABORT.as_raw() => {
                CompileError::TooMuch(format!("compiling it takes more than {} MiB of memory", memory >> 20))
            }
            Some(signal) if signal == Signal::KILL.as_raw() => CompileError::TooMuch(
                "compiling it was ended from outside: the machine may have run out of memory".to_owned(),
            ),
            _ => CompileError::Broken(format!("the compiler has ended: {ended}")),
        }
    }
}

/// Why nothing is heard of the other process.
#[derive(Debug)]
enum Unheard {
    Broken(io::Error),
    /// It takes too long.
    Late,
    /// It says more than is heard.
    TooMuch,
}

impl From<io::Error> for Unheard {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Writes the component and reads what comes back, at the same time: the other side may give up before it has read everything. One that
/// takes longer than it may, or says more than `most` bytes, is ended.
fn hear(child: &mut Child, wasm: &[u8], within: Duration, most: u64) -> Result<Vec<u8>, Unheard> {
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("it has no pipes").into());
    };
    let thread = || thread::Builder::new().name("compile".to_owned());
    let (done, is_done) = mpsc::channel();
    thread::scope(|scope| {
        thread().spawn_scoped(scope, move || {
            // What it has not read it does not need: its answer says why.
            let _ = stdin.write_all(wasm);
        })?;
        let reading = thread().spawn_scoped(scope, move || {
            let mut said = Vec::new();
            let read = stdout.take(most + 1).read_to_end(&mut said);
            // Nobody waits any more where it was late.
            let _ = done.send(read.map(|_| said));
        });
        let said = match reading {
            Ok(_) => is_done.recv_timeout(within).map_err(|_| Unheard::Late),
            Err(error) => Err(error.into()),
        };
        if said.is_err() {
            // Its pipes close, and nobody here waits for what comes through them.
            let _ = child.kill();
        }
        let said = said??;
        match said.len() as u64 > most {
            true => Err(Unheard::TooMuch),
            false => Ok(said),
        }
    })
}

/// What the other process does: reads a component on standard input and writes machine code, or why there is none; and, in the last eight
/// bytes, the microseconds of CPU time that it took.
#[must_use]
pub fn serve(request: &CompileRequest) -> ExitCode {
    let (said, code) = match request.answer() {
        Ok(code) => (code, ExitCode::SUCCESS),
        Err(why) => (why.into_bytes(), ExitCode::from(u8::try_from(REFUSED).unwrap_or(1))),
    };
    let took = clock_gettime(ClockId::ProcessCPUTime);
    let took = Duration::try_from(took).unwrap_or_default().as_micros();
    let took = u64::try_from(took).unwrap_or(u64::MAX).to_le_bytes();
    let mut stdout = io::stdout();
    match stdout.write_all(&said).and_then(|()| stdout.write_all(&took)) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

impl CompileRequest {
    fn answer(&self) -> Result<Vec<u8>, String> {
        let failed = |error: io::Error| error.to_string();
        // Nobody waits for what a gateway that has ended wanted.
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| failed(error.into()))?;
        // Traffic goes first, and where memory runs out, this does. Where that may not be said, it goes as it goes.
        let _ = stand_back();
        let _ = fs::write("/proc/self/oom_score_adj", "1000");
        let engine = compiling_engine(self.reservation).map_err(|error| format!("{error:#}"))?;
        let mut wasm = Vec::new();
        let most = u64::try_from(MAX_COMPONENT_BYTES).unwrap_or(u64::MAX);
        io::stdin().take(most).read_to_end(&mut wasm).map_err(failed)?;
        // Less than is asked for, where whoever started the gateway has let it have less.
        let least = |resource: Resource, most: u64| getrlimit(resource).maximum.map_or(most, |least| most.min(least));
        let exactly = |resource: Resource, most: u64| {
            let most = least(resource, most);
            Rlimit {
                current: Some(most),
                maximum: Some(most),
            }
        };
        let seconds = seconds(self.limits.cpu);
        let limits = [
            (Resource::Core, exactly(Resource::Core, 0)),
            (Resource::Data, exactly(Resource::Data, self.limits.memory)),
            (
                Resource::Cpu,
                Rlimit {
                    current: Some(least(Resource::Cpu, seconds)),
                    // A second later there would be no word of why.
                    maximum: Some(least(Resource::Cpu, seconds.saturating_add(1))),
                },
            ),
        ];
        for (resource, limit) in limits {
            setrlimit(resource, limit).map_err(|error| failed(error.into()))?;
        }
        engine.precompile_component(&wasm).map_err(|error| format!("{error:#}"))
    }
}

/// Functions that are compiled at once: each has memory of its own, so that a machine of many processors would need more.
fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS)
}

/// The system counts in whole seconds.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// This program, even where a newer one lies in its place by now.
const PROGRAM: &str = "/proc/self/exe";

/// How the other process says that what it wrote is no code but a reason.
const REFUSED: i32 = 3;

/// A big component is there in seconds with these.
const MAX_THREADS: usize = 4;

/// By the clock, compiling may take so many times what it may take of CPU time: traffic goes first, and a reload does not wait for ever.
const PATIENCE: u32 = 10;
/// Or as long as this: a machine that is busy for a moment is no reason to refuse anything.
const LEAST_PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of machine code that are taken: ten times what an interpreter of Python comes to. The gateway holds it twice for a moment.
pub(super) const MAX_CODE: u64 = 256 << 20;

/// Bytes behind it that say how long it took.
const TOOK: usize = size_of::<u64>();

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const REQUEST: CompileRequest = CompileRequest {
        reservation: 0,
        limits: CompileLimits {
            cpu: Duration::from_secs(7),
            memory: 0,
        },
    };

    /// Another process, with pipes.
    fn process(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn who_does_not_come_to_an_end_is_ended() {
        // More than a pipe holds: it is not read, either.
        let wasm = vec![0; 1 << 20];
        let mut child = process("exec sleep 3600");
        let said = hear(&mut child, &wasm, Duration::from_millis(50), 1 << 20);
        assert!(matches!(said, Err(Unheard::Late)), "{said:?}");
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
        let mut child = process("exec cat");
        assert_eq!(
            hear(&mut child, &wasm, Duration::from_secs(3600), 1 << 20).unwrap(),
            wasm
        );
        child.wait().unwrap();
    }

    #[test]
    fn what_it_took_stands_behind_what_was_said() {
        let ask = |script: &str| REQUEST.ask(process(script), b"", 1000);
        let (said, took) = ask(r"printf 'code\100\342\1\0\0\0\0\0'").unwrap();
        assert_eq!((&*said, took), (&b"code"[..], Duration::from_micros(123_456)));
        let script = r"printf 'why\1\0\0\0\0\0\0\0'; exit 3";
        let (error, took) = ask(script).unwrap_err();
        assert!(
            matches!(&error, CompileError::Refused(why) if why == "why"),
            "{error:?}"
        );
        assert_eq!(took, Duration::from_micros(1));
        // Who says nothing may have used all of it.
        for script in ["kill -XCPU $$", "kill -KILL $$", "exit 1"] {
            let (_, took) = ask(script).unwrap_err();
            assert_eq!(took, Duration::from_secs(7), "{script}");
        }
    }

    #[test]
    fn more_machine_code_than_is_taken_is_the_components_fault_and_not_the_compilers() {
        // What it took stands behind it, and counts for none of it.
        let ask = |script: &str| REQUEST.ask(process(script), b"", 1000);
        let (code, _) = ask("head -c 1008 /dev/zero").unwrap();
        assert_eq!(code.len(), 1000);
        for script in ["head -c 1009 /dev/zero", "exec cat /dev/zero"] {
            let (error, took) = ask(script).unwrap_err();
            assert!(matches!(error, CompileError::TooMuchCode(1000)), "{error:?}");
            assert_eq!(took, REQUEST.limits.cpu);
        }
        let error = CompileError::TooMuchCode(MAX_CODE).of("big").to_string();
        assert_eq!(
            error,
            "big: compiled, it has more than the 256 MiB of machine code that are taken"
        );
    }
}
