//! Selection of the driver of a relay, by trying.

use tracing::warn;

use crate::cli::invocation::Engine;
use crate::io::epoll::{EpollConfig, EpollDriver};
use crate::io::uring::{self, UringConfig, UringDriver};
use crate::process::SetupError;

/// A driver that works here.
pub(crate) enum Opened {
    Uring(Box<UringDriver>),
    Epoll(Box<EpollDriver>),
}

/// Makes the driver of the requested engine, or of the best one available.
///
/// # Errors
/// io_uring was requested and is not available, or the process is short of what any engine needs.
pub(crate) fn open(engine: Engine) -> Result<Opened, SetupError> {
    match engine {
        Engine::Epoll => epoll(),
        Engine::Uring => Ok(Opened::Uring(Box::new(UringDriver::new(&UringConfig::default())?))),
        Engine::Auto => match probed() {
            Ok(driver) => Ok(Opened::Uring(Box::new(driver))),
            Err(reason) => {
                warn!(%reason, "io_uring cannot be used here: going on with epoll, which is slower");
                epoll()
            }
        },
    }
}

/// A sandbox may allow the creation of a ring and then not perform its operations.
fn probed() -> Result<UringDriver, uring::SetupError> {
    let config = UringConfig::default();
    uring::probe(&config)?;
    UringDriver::new(&config)
}

fn epoll() -> Result<Opened, SetupError> {
    match EpollDriver::new(&EpollConfig::default()) {
        Ok(driver) => Ok(Opened::Epoll(Box::new(driver))),
        Err(error) => Err(SetupError::Process { what: "cannot set up epoll", error }),
    }
}
