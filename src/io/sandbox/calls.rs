//! System calls, by seccomp. All threads of the process are filtered, those that run already too, and
//! whoever makes a call that is not allowed ends the process at once (SIGSYS), so that it is seen.
//!
//! The kernel keeps a table of calls that are allowed whatever their arguments, so these cost no run of
//! the filter.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};

use crate::cli::fence::Needs;

/// Allowed with any arguments.
const ALLOWED: &[c_long] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_mseal,
    libc::SYS_munmap,
    // Threads, time, and the end.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_membarrier,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    // Of process 1: it waits for what others have left behind.
    libc::SYS_waitid,
    // What the process and the system are.
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getuid,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    // Descriptors. Which files may be opened is for Landlock to say.
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fstatfs,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_newfstatat,
    libc::SYS_readlinkat,
    libc::SYS_statfs,
    libc::SYS_statx,
    // Waiting. No ring can be made any more, so these enter the one that is restricted.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    // Sockets, but for their making.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
    // More fences: the log's thread is behind that of files by a call of its own.
    libc::SYS_landlock_restrict_self,
];

/// The same that newer architectures do without.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_getrlimit,
    libc::SYS_lstat,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: &[c_long] = &[];

/// Answered as by a kernel that does not have them: C libraries then use an older call, whose
/// arguments can be filtered.
const ABSENT: &[c_long] = &[
    libc::SYS_clone3,
    libc::SYS_close_range,
    libc::SYS_epoll_pwait2,
    libc::SYS_futex_waitv,
    libc::SYS_openat2,
];

/// Calls that came with Linux 6.5 and later, and as many that are still to come: absent too, so that a
/// newer C library runs here as it does on an older kernel. x86-64 has others behind them.
const LATE: std::ops::Range<c_long> = 451..512;

/// What an administrator alone needs, and no command that serves a stream.
const ADMINISTRATION: &[c_long] = &[
    libc::SYS_acct,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_init_module,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// The same of this architecture alone: the processor's ports.
#[cfg(target_arch = "x86_64")]
const ADMINISTRATION_OLD: &[c_long] = &[libc::SYS_ioperm, libc::SYS_iopl];
#[cfg(not(target_arch = "x86_64"))]
const ADMINISTRATION_OLD: &[c_long] = &[];

/// Requests to any descriptor.
const REQUESTS: &[libc::Ioctl] = &[
    libc::FIONBIO,
    libc::FIONREAD,
    libc::SIOCGIFINDEX as libc::Ioctl,
    libc::SIOCGIFNAME as libc::Ioctl,
    libc::TCGETS,
    libc::TIOCGWINSZ,
    libc::TIOCOUTQ,
];

/// Requests to a serial device.
const SERIAL_REQUESTS: &[libc::Ioctl] = &[
    libc::TCFLSH,
    libc::TCGETS2,
    libc::TCSBRK,
    libc::TCSETS,
    libc::TCSETS2,
    libc::TCSETSF,
    libc::TCSETSF2,
    libc::TCSETSW,
    libc::TCSETSW2,
    libc::TIOCEXCL,
    libc::TIOCNXCL,
];

/// `PR_SET_VMA` of `linux/prctl.h`: C libraries name their memory.
const NAME_MEMORY: i32 = 0x5356_4d41;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Compiled<T> = Result<T, BackendError>;

/// Allows what a plan needs.
///
/// # Errors
/// Why the kernel does not.
pub(super) fn narrow(needs: &Needs) -> Result<(), String> {
    let compile = || -> Compiled<[BpfProgram; 2]> {
        let absent = with_any_arguments(ABSENT.iter().copied().chain(LATE));
        let mut allowed = absent.clone();
        allowed.extend(with_any_arguments(ALLOWED.iter().chain(ALLOWED_OLD).copied()));
        allowed.extend(by_arguments(needs)?);
        let absent = absent.into_iter().filter(|(call, _)| !ALLOWED.contains(call)).collect();
        let not_implemented = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
        // Of several filters the strictest answer counts.
        Ok([
            program(absent, SeccompAction::Allow, not_implemented)?,
            program(allowed, SeccompAction::KillProcess, SeccompAction::Allow)?,
        ])
    };
    install(compile())
}

/// Forbids what commands do not need either.
///
/// # Errors
/// As of [`narrow`].
pub(super) fn wide() -> Result<(), String> {
    let forbidden = with_any_arguments(ADMINISTRATION.iter().chain(ADMINISTRATION_OLD).copied());
    let filter = program(forbidden, SeccompAction::Allow, SeccompAction::KillProcess);
    install(filter.map(|filter| [filter]))
}

fn install<const N: usize>(filters: Compiled<[BpfProgram; N]>) -> Result<(), String> {
    let filters = filters.map_err(|error| error.to_string())?;
    let mut installed = filters.iter().map(|filter| apply_filter_all_threads(filter));
    installed.try_for_each(|result| result.map_err(|error| error.to_string()))
}

fn program(rules: Rules, other: SeccompAction, these: SeccompAction) -> Compiled<BpfProgram> {
    SeccompFilter::new(rules, other, these, TargetArch::try_from(ARCH)?)?.try_into()
}

fn with_any_arguments(calls: impl Iterator<Item = c_long>) -> Rules {
    calls.map(|call| (call, Vec::new())).collect()
}

/// Calls whose arguments decide.
fn by_arguments(needs: &Needs) -> Compiled<Rules> {
    let mut rules = Rules::from([
        (libc::SYS_clone, vec![rule([only_a_thread()?])?]),
        (libc::SYS_ioctl, requests(needs)?),
        (libc::SYS_mmap, mappings(needs)?),
        (libc::SYS_mprotect, vec![rule([masked(2, libc::PROT_EXEC, 0)?])?]),
        (libc::SYS_openat, openings(needs, 2)?),
        (libc::SYS_prctl, one_of(0, [libc::PR_SET_NAME, libc::PR_SET_NO_NEW_PRIVS, NAME_MEMORY])?),
        // Limits are read, not set.
        (libc::SYS_prlimit64, vec![rule([pointer_is_null(2)?])?]),
        (libc::SYS_socket, sockets()?),
        // A panic that cannot unwind aborts.
        (libc::SYS_tgkill, one_of(0, [std::process::id().cast_signed()])?),
    ]);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, openings(needs, 1)?);
    if !needs.removed.is_empty() {
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_unlink, Vec::new());
        rules.insert(libc::SYS_unlinkat, one_of(2, [0])?);
    }
    Ok(rules)
}

/// `clone`: no process, and no namespace.
fn only_a_thread() -> Compiled<SeccompCondition> {
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;
    masked(0, libc::CLONE_THREAD | namespaces, libc::CLONE_THREAD)
}

fn requests(needs: &Needs) -> Compiled<Vec<SeccompRule>> {
    let serial = if needs.opened.is_empty() { &[] } else { SERIAL_REQUESTS };
    // The type differs between C libraries, and musl's is signed: the kernel reads 32 bits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let each = |request: &libc::Ioctl| rule([equal(1, u64::from(*request as u32))?]);
    REQUESTS.iter().chain(serial).map(each).collect()
}

/// `mmap`: the libraries of a resolver are mapped to be executed, and never to be written, too.
fn mappings(needs: &Needs) -> Compiled<Vec<SeccompRule>> {
    let (write, execute) = (libc::PROT_WRITE, libc::PROT_EXEC);
    let allowed = if needs.names { &[0, write, execute][..] } else { &[0, write] };
    allowed.iter().map(|bits| rule([masked(2, write | execute, *bits)?])).collect()
}

/// `open`: nothing is cut off, and only FIFOs and devices are written to. The access log is appended to, and
/// made where it is not there.
fn openings(needs: &Needs, flags: u8) -> Compiled<Vec<SeccompRule>> {
    let makes = libc::O_CREAT | libc::O_TRUNC;
    let mask = if needs.opened.is_empty() { makes | libc::O_ACCMODE } else { makes };
    let mut rules = vec![rule([masked(flags, mask, 0)?])?];
    if needs.appended.is_some() {
        let appends = libc::O_WRONLY | libc::O_APPEND;
        rules.push(rule([masked(flags, libc::O_ACCMODE | libc::O_TRUNC | appends, appends)?])?);
    }
    Ok(rules)
}

/// TCP and UDP, Unix sockets, and questions about the interfaces; nothing raw.
fn sockets() -> Compiled<Vec<SeccompRule>> {
    const KIND: i32 = 0xf;
    let mut rules = vec![
        rule([is(0, libc::AF_UNIX)?])?,
        rule([is(0, libc::AF_NETLINK)?, is(2, libc::NETLINK_ROUTE)?])?,
    ];
    for family in [libc::AF_INET, libc::AF_INET6] {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
            rules.push(rule([is(0, family)?, masked(1, KIND, kind)?])?);
        }
    }
    Ok(rules)
}

fn one_of<const N: usize>(argument: u8, values: [i32; N]) -> Compiled<Vec<SeccompRule>> {
    values.into_iter().map(|value| rule([is(argument, value)?])).collect()
}

fn rule<const N: usize>(conditions: [SeccompCondition; N]) -> Compiled<SeccompRule> {
    SeccompRule::new(conditions.into())
}

fn is(argument: u8, value: i32) -> Compiled<SeccompCondition> {
    equal(argument, u64::from(value.cast_unsigned()))
}

fn equal(argument: u8, value: u64) -> Compiled<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn masked(argument: u8, mask: i32, bits: i32) -> Compiled<SeccompCondition> {
    let [mask, bits] = [mask, bits].map(|flags| u64::from(flags.cast_unsigned()));
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), bits)
}

fn pointer_is_null(argument: u8) -> Compiled<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)
}
