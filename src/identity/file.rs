//! Files with keys, certificates and secrets.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::IdentityError;
use crate::limits::KEY_FILE_BYTES;

/// Permission bits of anybody but the owner.
const OTHERS: u32 = 0o077;

/// Where a service manager puts credentials (systemd's `LoadCredential=`).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The file that a name stands for: a credential of this name, if there is one.
pub(super) fn locate(name: &Path) -> PathBuf {
    locate_in(env::var_os(CREDENTIALS).map(PathBuf::from), name)
}

fn locate_in(credentials: Option<PathBuf>, name: &Path) -> PathBuf {
    let credential = credentials.filter(|_| name.is_relative()).map(|folder| folder.join(name));
    credential.filter(|path| path.exists()).unwrap_or_else(|| name.to_owned())
}

/// Reads a file that others may read too.
///
/// # Errors
/// The system's, and a file that is too long.
pub(super) fn read(name: &Path, item: &'static str) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    read_open(name, item, open(name, item)?)
}

/// Reads a file with a private key or a secret.
///
/// # Errors
/// The same; a file of another user, and one that others may read or write. Credentials are as the
/// service manager makes them.
pub(super) fn read_private(
    name: &Path,
    item: &'static str,
) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let file = open(name, item)?;
    // Of the open file, which nobody can exchange any more.
    let metadata = file.metadata().map_err(|error| unreadable(name, item, &error))?;
    let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
    let shown = name.display();
    if !is_credential(name) {
        if mode & OTHERS != 0 {
            return Err(IdentityError::File {
                item,
                what: format!("{shown} has the mode {mode:04o}: others may use it"),
                remedy: format!(
                    "chmod 600 {shown}, and if others may have read it, make a new one"
                ),
            });
        }
        let own = rustix::process::geteuid().as_raw();
        if owner != own && owner != 0 {
            return Err(IdentityError::File {
                item,
                what: format!("{shown} belongs to user {owner}, and this process is user {own}"),
                remedy: format!("chown {own} {shown}"),
            });
        }
    }
    read_open(name, item, file)
}

/// Whether the file is in the folder of credentials.
fn is_credential(name: &Path) -> bool {
    let folder = env::var_os(CREDENTIALS).map(PathBuf::from);
    let folder = folder.and_then(|folder| folder.canonicalize().ok());
    let path = name.canonicalize().ok();
    folder.zip(path).is_some_and(|(folder, path)| path.starts_with(folder))
}

fn open(name: &Path, item: &'static str) -> Result<File, IdentityError> {
    // Opening a FIFO would wait for a writer.
    let options = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(options).open(name);
    let file = file.map_err(|error| unreadable(name, item, &error))?;
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        Ok(_) => Err(IdentityError::File {
            item,
            what: format!("{} is no file", name.display()),
            remedy: "name a file".to_owned(),
        }),
        Err(error) => Err(unreadable(name, item, &error)),
    }
}

fn read_open(
    name: &Path,
    item: &'static str,
    file: File,
) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    // Never grown, which would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES as usize + 1));
    file.take(KEY_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(name, item, &error))?;
    if bytes.len() as u64 > KEY_FILE_BYTES {
        return Err(IdentityError::File {
            item,
            what: format!("{} has more than {KEY_FILE_BYTES} bytes", name.display()),
            remedy: "name the right file".to_owned(),
        });
    }
    Ok(bytes)
}

fn unreadable(name: &Path, item: &'static str, error: &io::Error) -> IdentityError {
    let missing = error.kind() == io::ErrorKind::NotFound;
    let remedy = match (item, missing) {
        ("key", true) => "make one: sockmux-uring keygen".to_owned(),
        ("secret", true) => {
            "name the file that `sockmux-uring keygen --secret` made; the secret itself does not \
             belong on a command line"
                .to_owned()
        }
        _ => "check the path, and that this user may read it".to_owned(),
    };
    // What stands in the place of a secret's file may be the secret.
    let shown = match item {
        "secret" if missing => "its file".to_owned(),
        _ => name.display().to_string(),
    };
    IdentityError::File { item, what: format!("cannot read {shown}: {error}"), remedy }
}

/// Makes a file that only its owner may read.
///
/// # Errors
/// The system's; a file that is there already is left as it is.
pub(super) fn create_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.key");
        create_private(&path, b"content").expect("a new file");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read_private(&path, "key").unwrap().as_slice(), b"content");
        for mode in [0o640, 0o604, 0o620, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let message = read_private(&path, "key").unwrap_err().to_string();
            assert!(message.contains(&format!("the mode {mode:04o}: others may")), "{message}");
            assert!(message.contains("chmod 600"), "{message}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(read_private(&path, "key").is_ok());
        let error = create_private(&path, b"other").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_secret_in_place_of_its_file_is_not_repeated() {
        let secret = Path::new("0123456789abcdef0123456789abcdef");
        let message = read_private(secret, "secret").unwrap_err().to_string();
        assert!(!message.contains("abcdef") && message.contains("keygen --secret"), "{message}");
        let message = read_private(Path::new("none.key"), "key").unwrap_err().to_string();
        assert!(
            message.contains("none.key") && message.contains("sockmux-uring keygen"),
            "{message}"
        );
    }

    #[test]
    fn no_file_and_one_that_is_too_long_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let message = read(folder.path(), "ca").unwrap_err().to_string();
        assert!(message.contains("is no file"), "{message}");
        let message = read(Path::new("/dev/zero"), "ca").unwrap_err().to_string();
        assert!(message.contains("is no file"), "{message}");
        let path = folder.path().join("long");
        create_private(&path, &vec![b'x'; KEY_FILE_BYTES as usize + 1]).expect("a new file");
        let message = read(&path, "ca").unwrap_err().to_string();
        assert!(message.contains("more than"), "{message}");
    }

    #[test]
    fn a_credential_is_found_by_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = Path::new("sockmux.key");
        let credentials = || Some(folder.path().to_owned());
        assert_eq!(locate_in(credentials(), name), name);
        create_private(&folder.path().join(name), b"").expect("a new file");
        assert_eq!(locate_in(credentials(), name), folder.path().join(name));
        assert_eq!(locate_in(None, name), name);
        assert_eq!(
            locate_in(credentials(), Path::new("/a/sockmux.key")),
            Path::new("/a/sockmux.key")
        );
    }
}
