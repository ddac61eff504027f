#![allow(unsafe_code)]
//! The end of a driver: nothing is freed that the kernel may still touch.

use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use super::UringDriver;
use super::request::Request;
use super::slots::OWN;
use crate::io::driver::Driver;
use crate::limits::URING_TEARDOWN_MILLIS;

impl UringDriver {
    /// Ends all operations; whether that succeeded in time.
    fn quiesce(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_millis(URING_TEARDOWN_MILLIS);
        let mut discarded = Vec::new();
        while self.in_flight() > 0 {
            // Again each time: an operation in the middle of something escapes a cancellation.
            self.push(Request::cancel_any().named(OWN));
            let time_left = deadline.saturating_duration_since(Instant::now());
            if time_left.is_zero() || self.wait(Some(time_left), &mut discarded).is_err() {
                return false;
            }
            // Chunks, gathers and accepted descriptors among them end here.
            discarded.clear();
        }
        // No cancellation reaches a notice, and no wait ends with one: it comes when the far end has the bytes.
        while self.zero_copy.outstanding() > 0 {
            self.unspill();
            let time_left = deadline.saturating_duration_since(Instant::now());
            if time_left.is_zero() {
                return false;
            }
            match self.enter_for_events(Some(time_left)).map_err(|error| error.raw_os_error()) {
                Ok(()) | Err(Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
                Err(_) => return false,
            }
            self.reap(&mut discarded);
        }
        true
    }
}

impl Drop for UringDriver {
    fn drop(&mut self) {
        if !self.quiesce() {
            // The kernel may still write to a buffer or read a chunk. Neither these nor the
            // buffer groups are dropped, ever: memory lost once beats memory overwritten later.
            tracing::warn!(
                operations = self.ops.len(),
                notices = self.zero_copy.outstanding(),
                "io_uring operations did not end; their memory is given up"
            );
            return;
        }
        for group in self.groups.iter() {
            // An error changes nothing: closing the ring ends the registration too.
            let _ = group.unregister(&self.ring.submitter());
        }
        // SAFETY: dropped once, here, and not used afterwards. No operation is in flight and all
        // notices have come, so the kernel holds no pointer into any.
        unsafe {
            ManuallyDrop::drop(&mut self.ops);
            ManuallyDrop::drop(&mut self.zero_copy);
            ManuallyDrop::drop(&mut self.groups);
        }
    }
}
