//! Authentication by user and password in `Proxy-Authorization` (RFC 9110 section 11.7.2), by the
//! scheme `Basic` (RFC 7617).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::fault::{Fault, Status};
use super::fields::Fields;
use crate::cli::plan::User;
use crate::proxy_proto::users;

/// Whether the request is from one of these users. Every request must authenticate: one connection
/// may carry requests of several users.
pub(super) fn check(fields: &Fields<'_>, users: &[User]) -> Result<(), Fault> {
    let refused = |why| Err(Fault::new(Status::AuthenticationRequired, why));
    let mut values = fields.values("proxy-authorization");
    let value = match (values.next(), values.next()) {
        (None, _) => return refused("the proxy has to be told a user and a password".to_owned()),
        (Some(_), Some(_)) => {
            return Err(Fault::bad("the request has several Proxy-Authorizations"));
        }
        (Some(value), None) => value,
    };
    let Some((name, password)) = basic(value) else {
        return refused("Proxy-Authorization is not Basic with a user and a password".to_owned());
    };
    if users::known(users, &name, &password) {
        return Ok(());
    }
    let why = format!("user {:?} refused", String::from_utf8_lossy(&name));
    Err(Fault::new(Status::WrongPassword, why))
}

/// User and password. The user's name has no colon, the password may have any.
fn basic(value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let at = value.iter().position(|&byte| byte == b' ')?;
    let (scheme, token) = value.split_at(at);
    let said = STANDARD.decode(token.trim_ascii()).ok()?;
    let colon = said.iter().position(|&byte| byte == b':')?;
    let (name, password) = (&said[..colon], &said[colon + 1..]);
    scheme.eq_ignore_ascii_case(b"basic").then(|| (name.to_vec(), password.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_in_every_form() {
        for (value, read) in [
            ("Basic bWU6c2VjcmV0", Some(("me", "secret"))),
            ("bAsIC   bWU6c2VjcmV0", Some(("me", "secret"))),
            ("Basic bWU6", Some(("me", ""))),
            ("Basic Og==", Some(("", ""))),
            ("Basic bWU6YTpiOg==", Some(("me", "a:b:"))),
            ("Basic YsO8cm86w58=", Some(("büro", "ß"))),
            ("Basic bWU=", None),
            ("Basic bWU6YTpiOg", None),
            ("Basic bWU6c2Vjcm\tV0", None),
            ("Basic bWU6c2VjcmV0 more", None),
            ("Basic bWU6c2VjcmV0,Basic bWU6c2VjcmV0", None),
            ("Basic", None),
            ("Basic ", None),
            ("BasicbWU6c2VjcmV0", None),
            ("Bearer bWU6c2VjcmV0", None),
            ("Digest username=\"me\"", None),
            ("", None),
        ] {
            let read = read.map(|(name, password): (&str, &str)| (name.into(), password.into()));
            assert_eq!(basic(value.as_bytes()), read, "{value}");
        }
    }
}
