//! Processor time of single threads and of the process, read from `/proc`.
//!
//! `getrusage(RUSAGE_THREAD)` reports the calling thread only; by `/proc` the measuring thread reads
//! the times of the relays' threads, and of the kernel workers that io_uring starts for a thread.

use std::fs;
use std::io;
use std::time::Duration;

/// Ticks a second of the times in `/proc/PID/stat`: `USER_HZ`, 100 on every architecture that
/// Linux has io_uring for (the interface is frozen at it; see `proc_pid_stat(5)`).
const TICKS_PER_SEC: u64 = 100;

/// A thread of this process whose processor time can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thread {
    id: u32,
}

impl Thread {
    /// The calling thread.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn current() -> io::Result<Self> {
        let link = fs::read_link("/proc/thread-self")?;
        let id = link.file_name().and_then(|name| name.to_str()?.parse().ok());
        id.map(|id| Thread { id }).ok_or_else(|| malformed("/proc/thread-self"))
    }

    /// Processor time, user and system, that the thread has used so far, with that of its
    /// io_uring kernel workers that are alive.
    ///
    /// # Errors
    /// The thread has ended, or the kernel keeps no scheduler statistics.
    pub fn cpu_time(self) -> io::Result<Duration> {
        let mut total = run_time(self.id)?;
        let worker = format!("iou-wrk-{}", self.id);
        for entry in fs::read_dir("/proc/self/task")? {
            let Ok(id) = entry?.file_name().to_string_lossy().parse() else { continue };
            // A worker may end between being listed and being read: it then counts as nothing.
            let comm = fs::read_to_string(format!("/proc/self/task/{id}/comm")).unwrap_or_default();
            if comm.trim_end() == worker {
                total += run_time(id).unwrap_or_default();
            }
        }
        Ok(total)
    }
}

/// Processor time, user and system, that the whole process has used so far, ended threads
/// included; in steps of 10 ms.
///
/// # Errors
/// `/proc` is not there.
pub fn process_cpu_time() -> io::Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let ticks = parse_stat_ticks(&stat).ok_or_else(|| malformed("/proc/self/stat"))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SEC))
}

/// Nanoseconds on a processor: the first field of a task's `schedstat`.
fn run_time(id: u32) -> io::Result<Duration> {
    let path = format!("/proc/self/task/{id}/schedstat");
    let text = fs::read_to_string(&path)?;
    let nanos = text.split_ascii_whitespace().next().and_then(|word| word.parse().ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| malformed(&path))
}

/// utime + stime, fields 14 and 15. The second field is a name that may hold spaces and
/// parentheses: counting starts behind the last one.
fn parse_stat_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn malformed(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path} is not as proc(5) describes it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 30 12 13 14";
        assert_eq!(parse_stat_ticks(stat), Some(42));
        assert_eq!(parse_stat_ticks("7 (a"), None);
    }

    #[test]
    fn a_busy_thread_is_charged() {
        let thread = Thread::current().expect("/proc");
        let before = thread.cpu_time().expect("schedstat");
        let process_before = process_cpu_time().expect("stat");
        let deadline = Instant::now() + Duration::from_secs(20);
        while thread.cpu_time().expect("schedstat") - before < Duration::from_millis(30) {
            assert!(Instant::now() < deadline, "20 s passed without 30 ms of processor time");
        }
        assert!(process_cpu_time().expect("stat") > process_before);
    }
}
