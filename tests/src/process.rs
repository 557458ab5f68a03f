//! What the kernel says about a process: memory and CPU time.

use std::collections::HashMap;
use std::fs;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

/// Resident memory in bytes.
pub fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Open descriptors.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Lets a process have descriptors up to this number only, whatever it has open, and says up to which it had them before.
pub fn limit_descriptors(pid: u32, most: u64) -> u64 {
    let limit = Rlimit {
        current: Some(most),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let before = prlimit(pid, Resource::Nofile, limit).expect("the process is there, and ours");
    before.current.unwrap_or(u64::MAX)
}

/// CPU time used, in clock ticks, by a process and its children, living and reaped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTicks {
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
}

/// CPU time of a process tree, in clock ticks.
pub fn tree_cpu(root: u32) -> CpuTicks {
    tree(root)
        .into_iter()
        .filter_map(stat)
        .fold(CpuTicks::default(), |sum, stat| CpuTicks {
            user: sum.user + stat.cpu.user,
            system: sum.system + stat.cpu.system,
        })
}

/// Resident memory of a process tree in bytes. Pages that its processes share count once each.
pub fn tree_resident(root: u32) -> u64 {
    tree(root).into_iter().filter_map(resident).sum()
}

/// A process and all that descend from it.
pub fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for (pid, stat) in pids.filter_map(|pid| Some((pid, stat(pid)?))) {
        children.entry(stat.parent).or_default().push(pid);
    }
    let mut all = vec![root];
    let mut next = 0;
    while next < all.len() {
        all.extend(children.get(&all[next]).into_iter().flatten());
        next += 1;
    }
    all
}

struct Stat {
    parent: u32,
    cpu: CpuTicks,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, and may contain anything.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    // proc(5) counts from 1 and the name is field 2: `rest` begins with field 3.
    let field = |n: usize| fields.get(n - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(field(4)?).ok()?,
        cpu: CpuTicks {
            user: field(14)? + field(16)?,
            system: field(15)? + field(17)?,
        },
    })
}
