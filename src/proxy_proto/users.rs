//! Authentication of proxy users by name and password.

use crate::cli::plan::User;

/// Whether one of these users has this name and this password.
///
/// Compares every user and every byte, so that the time taken reveals nothing of a password but
/// whether its length is right.
pub(super) fn known(users: &[User], name: &[u8], password: &[u8]) -> bool {
    let same = |a: &[u8], b: &[u8]| {
        a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
    };
    users.iter().fold(false, |known, user| {
        known | (same(name, user.name.as_bytes()) & same(password, user.password.as_bytes()))
    })
}
