//! Whether io_uring works here, found by doing: versions and feature lists say what a kernel
//! could do, not what a container, a sysctl or an emulated kernel lets it do.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::error::{SetupError, SetupStep};
use super::{UringConfig, UringDriver};
use crate::io::driver::{BufferClass, Completion, Driver, Fd, Outcome, RecvMode, Token};
use crate::limits::URING_PROBE_MILLIS;

const HELLO: &[u8] = b"io_uring?";

/// Makes a driver of the sizes in `config`, receives through it as the engine does (multishot,
/// into a buffer that the kernel chooses), and drops it.
///
/// # Errors
///
/// Why io_uring cannot be used, and the remedy.
pub fn probe(config: &UringConfig) -> Result<(), SetupError> {
    let mut driver = UringDriver::new(config)?;
    for class in [BufferClass::Small, BufferClass::Bulk] {
        receive(&mut driver, class)
            .map_err(|error| SetupError::of(SetupStep::Receive, &error, config.pinned_bytes()))?;
    }
    Ok(())
}

fn receive(driver: &mut UringDriver, class: BufferClass) -> io::Result<()> {
    let (ours, mut theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let ours: Fd = Rc::new(OwnedFd::from(ours));
    driver.recv(&ours, RecvMode::Multishot, class, Token(0));
    for _ in 0..2 {
        // Twice: the first may be there before the operation begins, the second comes after.
        theirs.write_all(HELLO)?;
        let completion = next(driver)?;
        match completion.outcome {
            Outcome::Received(Ok(Some(chunk))) if chunk[..] == *HELLO && completion.more => {}
            Outcome::Received(Err(error)) => return Err(error),
            _ => return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        }
    }
    drop(theirs);
    match next(driver)? {
        Completion { outcome: Outcome::Received(Ok(None)), more: false, .. } => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
    }
}

fn next(driver: &mut UringDriver) -> io::Result<Completion> {
    let deadline = Instant::now() + Duration::from_millis(URING_PROBE_MILLIS);
    let mut completions = Vec::new();
    while completions.is_empty() {
        let time_left = deadline.saturating_duration_since(Instant::now());
        if time_left.is_zero() {
            return Err(io::Error::from_raw_os_error(libc::ETIME));
        }
        driver.wait(Some(time_left), &mut completions)?;
    }
    Ok(completions.remove(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_agrees_with_the_driver() {
        // Where these tests run, io_uring is there: the tests of the driver need it.
        probe(&UringConfig::default()).unwrap();
    }

    #[test]
    fn a_size_that_cannot_be_is_refused_and_not_blamed_on_the_kernel_version() {
        let config = UringConfig { small_buffers: 3, ..UringConfig::default() };
        let error = probe(&config).unwrap_err();
        assert_eq!((error.step, error.errno), (SetupStep::Buffers, libc::EINVAL));
    }
}
