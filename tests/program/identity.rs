//! Keys from the command line: made, shown, and refused where others may read them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use crate::testkit::program::command;
use crate::testkit::services::find;
use crate::testkit::skip::needs;

/// Exit code when the command line is valid and the set-up fails.
const SET_UP_FAILED: i32 = 3;

/// Runs the program in this folder, with these credentials of a service manager, to its end.
fn run(folder: &TempDir, credentials: Option<&Path>, words: &[&str]) -> Output {
    let mut command = command();
    command.args(words).current_dir(folder).env_remove("CREDENTIALS_DIRECTORY");
    command.envs(credentials.map(|path| ("CREDENTIALS_DIRECTORY", path)));
    command.output().expect("the binary under test starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Makes a key in the folder; gives its fingerprint.
fn keygen(folder: &TempDir) -> String {
    let made = run(folder, None, &["keygen"]);
    assert!(made.status.success(), "{}", stderr(&made));
    let fingerprint = stdout(&made).trim_end().to_owned();
    let told = stderr(&made);
    assert!(told.contains(&format!("add TLSCONF=peer:{fingerprint}")), "{told}");
    fingerprint
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("our own file");
}

const CHECK: [&str; 4] = ["--check", "-P127.0.0.1:0", "DEST=127.0.0.1:9", "STLS=fcl"];

#[test]
fn a_key_is_made_once_and_its_fingerprint_shown() {
    let folder = folder();
    let fingerprint = keygen(&folder);
    assert_eq!(fingerprint.len(), "SHA256:".len() + 43, "{fingerprint}");
    let mode = fs::metadata(folder.path().join("sockmux.key")).expect("it is there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);

    let checked = run(&folder, None, &CHECK);
    assert!(checked.status.success(), "{}", stderr(&checked));
    let text = stdout(&checked);
    assert!(text.contains("peers: those in sockmux.peers, which lists none now\n"), "{text}");
    assert!(text.ends_with(&format!("own key     {fingerprint}\n")), "{text}");

    let again = run(&folder, None, &["keygen"]);
    assert_eq!(again.status.code(), Some(SET_UP_FAILED));
    let told = stderr(&again);
    assert!(told.contains("is there already") && told.contains(&fingerprint), "{told}");
}

#[test]
fn a_secret_is_made_and_not_shown() {
    let folder = folder();
    let made = run(&folder, None, &["keygen", "--secret", "s"]);
    assert!(made.status.success() && made.stdout.is_empty(), "{}", stderr(&made));
    let path = folder.path().join("s");
    let secret = fs::read_to_string(&path).expect("a secret");
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
    let words = ["--check", "-P127.0.0.1:0", "DEST=127.0.0.1:9", "TLSCONF=secret:s"];
    let checked = run(&folder, None, &words);
    assert!(checked.status.success(), "{}", stderr(&checked));
    for output in [&made, &checked] {
        let text = stdout(output) + &stderr(output);
        assert!(!text.contains(secret.trim_end()), "{text}");
    }
}

#[test]
fn keys_that_others_may_read_stop_the_start() {
    let folder = folder();
    let missing = run(&folder, None, &CHECK);
    assert_eq!(missing.status.code(), Some(SET_UP_FAILED));
    let told = stderr(&missing);
    assert!(
        told.contains("cannot read sockmux.key") && told.contains("sockmux-uring keygen"),
        "{told}"
    );
    // The plan is shown all the same.
    assert!(stdout(&missing).contains("own key: sockmux.key\n"));

    keygen(&folder);
    set_mode(&folder.path().join("sockmux.key"), 0o644);
    for words in [&CHECK[..], &CHECK[1..]] {
        let refused = run(&folder, None, words);
        assert_eq!(refused.status.code(), Some(SET_UP_FAILED), "{words:?}");
        let told = stderr(&refused);
        assert!(told.contains("sockmux.key has the mode 0644: others may use it"), "{told}");
        assert!(told.contains("chmod 600 sockmux.key"), "{told}");
    }
}

/// systemd gives them to the service's user by an access list, which shows as permissions of a group.
#[test]
fn credentials_are_taken_as_the_service_manager_makes_them() {
    let (folder, credentials) = (folder(), self::folder());
    let fingerprint = keygen(&credentials);
    let key = credentials.path().join("sockmux.key");
    set_mode(&key, 0o440);
    let checked = run(&folder, Some(credentials.path()), &CHECK);
    assert!(checked.status.success(), "{}", stderr(&checked));
    assert!(stdout(&checked).contains(&fingerprint));
    // Named by its path, too; without such a folder it is a file like any other.
    let conf = format!("TLSCONF=key:{}", key.display());
    let words = ["--check", "-P127.0.0.1:0", "DEST=127.0.0.1:9", &conf];
    assert!(run(&folder, Some(credentials.path()), &words).status.success());
    assert_eq!(run(&folder, None, &words).status.code(), Some(SET_UP_FAILED));
}

/// The file is one that other programs read, and the fingerprint what they compute.
#[test]
fn openssl_reads_the_key_and_finds_the_same_fingerprint() {
    needs!("openssl");
    let folder = folder();
    let fingerprint = keygen(&folder);
    let openssl = find("openssl").expect("needed above").display().to_string();
    let script = format!(
        "{openssl} pkey -in sockmux.key -pubout -outform DER | {openssl} dgst -sha256 -binary | \
         {openssl} base64"
    );
    let shell =
        std::process::Command::new("sh").args(["-c", &script]).current_dir(&folder).output();
    let computed = stdout(&shell.expect("a shell"));
    assert_eq!(format!("SHA256:{}", computed.trim_end().trim_end_matches('=')), fingerprint);
}
