//! `STLS=` and `TLSCONF=`: TLS on the persistent connection, and who may be at its other end. The
//! words of the original; what `TLSCONF=` takes is this program's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{Failure, Problem, plain, quoted};
use super::files::Files;
use super::fingerprint::Fingerprint;
use super::peers;
use super::plan::{Authority, Checked, Device, Encryption, KnownPeer, LinkPlan, Proof, TlsSide};
use super::suggest;
use super::words::{Word, WordOrigin};
use crate::limits::{AUTHORITY_ITEMS_MAX, PEERS_FILE_BYTES, REKEY_BYTES};

/// The key of this end, unless `key:` names another.
pub const KEY_FILE: &str = "sockmux.key";

/// The peers file, where nothing says who the peer may be.
pub const PEERS_FILE: &str = "sockmux.peers";

/// The items of `TLSCONF=`.
pub(super) const ITEMS: [&str; 8] =
    ["key", "peer", "peers", "cert", "ca", "name", "secret", "rekey"];

/// The values of `STLS=`.
pub(super) const SIDES: [&str; 2] = ["fsv", "fcl"];

/// Items of the original that are passed over.
pub(super) const IGNORED: [&str; 2] = ["scache", "xcache"];

/// The words read so far.
#[derive(Default)]
pub(super) struct EncryptionWords {
    /// The first word that asks for encryption.
    word: Option<Word>,
    /// `STLS=`: the sides named, and the word.
    sides: Option<(Vec<TlsSide>, Word)>,
    key: Option<PathBuf>,
    certificate: Option<PathBuf>,
    secret: Option<PathBuf>,
    authorities: Vec<PathBuf>,
    names: Vec<String>,
    peers: Vec<KnownPeer>,
    peers_file: Option<(PathBuf, Vec<KnownPeer>)>,
    rekey_bytes: Option<u64>,
}

impl EncryptionWords {
    /// Reads the value of `STLS=`.
    ///
    /// # Errors
    /// Anything but `fsv`, `fcl` and both.
    pub(super) fn stls(&mut self, value: &str, word: &Word) -> Result<(), Problem> {
        let mut sides = self.sides.take().map(|(sides, _)| sides).unwrap_or_default();
        for item in value.split(',') {
            sides.push(match item.trim() {
                "fsv" => TlsSide::Dials,
                "fcl" => TlsSide::Accepts,
                other => return Err(not_a_side(other)),
            });
        }
        self.word.get_or_insert_with(|| word.clone());
        self.sides = Some((sides, word.clone()));
        Ok(())
    }

    /// Reads the value of `TLSCONF=`; things without effect go to `notices`.
    ///
    /// # Errors
    /// An unknown item, one without its value, one given twice, an invalid peer, a peers file that
    /// cannot be read.
    pub(super) fn conf(
        &mut self,
        value: &str,
        word: &Word,
        files: &dyn Files,
        notices: &mut Vec<String>,
    ) -> Result<(), Problem> {
        for item in value.split(',') {
            let (what, value) = item.trim().split_once(':').unwrap_or((item.trim(), ""));
            if IGNORED.contains(&what) {
                notices
                    .push(format!("TLSCONF={} has no effect: no TLS session is kept", plain(item)));
                continue;
            }
            if !ITEMS.contains(&what) {
                return Err(Problem::new(
                    format!("{} is not known", quoted(what)),
                    suggest::remedy(what, &ITEMS),
                ));
            }
            if value.is_empty() {
                return Err(Problem::new(
                    format!("{what} has no value"),
                    format!("write TLSCONF={what}:{}", example(what)),
                ));
            }
            self.item(what, value, word, files)?;
        }
        self.word.get_or_insert_with(|| word.clone());
        Ok(())
    }

    fn item(
        &mut self,
        what: &str,
        value: &str,
        word: &Word,
        files: &dyn Files,
    ) -> Result<(), Problem> {
        let one = match what {
            "peer" => return self.peer(value),
            "peers" => return self.peers_file(&beside(word, value), files),
            "name" => {
                limited(self.names.len(), what)?;
                self.names.push(value.to_owned());
                return Ok(());
            }
            "ca" => {
                limited(self.authorities.len(), what)?;
                self.authorities.push(beside(word, value));
                return Ok(());
            }
            "rekey" => {
                return match self.rekey_bytes.replace(rekey_bytes(value)?) {
                    None => Ok(()),
                    Some(_) => Err(twice(what)),
                };
            }
            "key" => &mut self.key,
            "cert" => &mut self.certificate,
            _ => &mut self.secret,
        };
        match one.replace(beside(word, value)) {
            None => Ok(()),
            Some(_) => Err(twice(what)),
        }
    }

    /// `SHA256:...` or `NAME=SHA256:...`.
    fn peer(&mut self, value: &str) -> Result<(), Problem> {
        let peer = match value.split_once('=') {
            // A fingerprint may end in one.
            Some((name, fingerprint)) if !fingerprint.is_empty() => {
                peers::named(name, fingerprint)?
            }
            _ => KnownPeer {
                name: None,
                fingerprint: Fingerprint::parse(value)?,
                options: Arc::default(),
            },
        };
        peers::distinct(&self.peers, &peer)?;
        self.peers.push(peer);
        Ok(())
    }

    fn peers_file(&mut self, path: &Path, files: &dyn Files) -> Result<(), Problem> {
        let listed = listed(path, files)?;
        match self.peers_file.replace((path.to_owned(), listed)) {
            None => Ok(()),
            Some(_) => Err(twice("peers")),
        }
    }

    /// Whether there is a peers file, so that a peer may be permitted something.
    pub(super) fn reads_peers(&self) -> bool {
        self.peers_file.is_some() || (self.word.is_some() && !self.says_who())
    }

    /// Whether anything but a peers file says who the peer may be.
    fn says_who(&self) -> bool {
        let by_key = !self.peers.is_empty() || !self.authorities.is_empty();
        by_key || self.secret.is_some()
    }

    /// Encryption in the end, if any word asked for it.
    ///
    /// # Errors
    /// A link that cannot be encrypted, a side that the link cannot take, items that contradict each
    /// other.
    pub(super) fn finish(
        mut self,
        link: &LinkPlan,
        files: &dyn Files,
    ) -> Result<Option<Encryption>, Failure> {
        let Some(word) = self.word.take() else { return Ok(None) };
        let at_word = |problem| Failure::at(&word, &problem);
        let side = match self.sides.take() {
            Some((sides, of)) => {
                side(link, &sides).map_err(|problem| Failure::at(&of, &problem))?
            }
            None => side(link, &[]).map_err(at_word)?,
        };
        let says_who = self.says_who();
        let authority = self.authority(link, side).map_err(at_word)?;
        let proof = self.proof(authority.is_some()).map_err(at_word)?;
        let peers_file = match self.peers_file {
            None if !says_who => {
                let path = PathBuf::from(PEERS_FILE);
                // It may be written while the program runs.
                let listed = match files.read(&path, 0) {
                    Ok(_) => listed(&path, files).map_err(at_word)?,
                    Err(_) => Vec::new(),
                };
                Some((path, listed))
            }
            file => file,
        };
        let (peers_file, listed) = peers_file.unzip();
        let listed = listed.unwrap_or_default();
        let (peers, rekey_bytes) = (self.peers, self.rekey_bytes);
        Ok(Some(Encryption { side, proof, peers, peers_file, listed, authority, rekey_bytes }))
    }

    fn authority(&mut self, link: &LinkPlan, side: TlsSide) -> Result<Option<Authority>, Problem> {
        let certificates = std::mem::take(&mut self.authorities);
        let mut names = std::mem::take(&mut self.names);
        if certificates.is_empty() {
            return match names.first() {
                None => Ok(None),
                Some(name) => Err(Problem::new(
                    format!(
                        "name:{} is about certificates, and no authority is named",
                        plain(name)
                    ),
                    "add ca:FILE, or name the peer by its key, as in peer:hostY=SHA256:...",
                )),
            };
        }
        match (link, side) {
            _ if !names.is_empty() => {}
            (LinkPlan::Connect(target), _) => names.push(target.host.clone()),
            (_, TlsSide::Accepts) => {}
            // Else each holder of a certificate could pose as the peer.
            (_, TlsSide::Dials) => {
                return Err(Problem::new(
                    "the name in the peer's certificate is not known",
                    "add name:HOST",
                ));
            }
        }
        Ok(Some(Authority { certificates, names }))
    }

    fn proof(&mut self, has_authority: bool) -> Result<Proof, Problem> {
        let (key, certificate) = (self.key.take(), self.certificate.take());
        let Some(secret) = self.secret.take() else {
            let key = key.unwrap_or_else(|| PathBuf::from(KEY_FILE));
            return Ok(Proof::Key { key, certificate });
        };
        let others = [
            ("key:", key.is_some()),
            ("cert:", certificate.is_some()),
            ("peer:", !self.peers.is_empty()),
            ("peers:", self.peers_file.is_some()),
            ("ca:", has_authority),
        ];
        match others.iter().find(|(_, given)| *given) {
            None => Ok(Proof::Secret(secret)),
            Some((other, _)) => Err(Problem::new(
                format!("secret: makes the keys of both ends, and {other} is given too"),
                "leave one of them out",
            )),
        }
    }
}

/// The side of this end.
fn side(link: &LinkPlan, named: &[TlsSide]) -> Result<TlsSide, Problem> {
    let one = match named {
        [one, others @ ..] if others.iter().all(|other| other == one) => Some(*one),
        _ => None,
    };
    match link {
        LinkPlan::Relay { .. } | LinkPlan::Loopback => Err(Problem::new(
            "there is no persistent connection that could be encrypted",
            "leave it out, or add -P[host]:port or SERVER=sockmux://host:port with PORT= or DEST=",
        )),
        LinkPlan::Connect(_) if one == Some(TlsSide::Accepts) => Err(Problem::new(
            "fcl is for the end that accepts the persistent connection, and this one makes it",
            "write STLS=fsv",
        )),
        LinkPlan::Listen(_) if one == Some(TlsSide::Dials) => Err(Problem::new(
            "fsv is for the end that makes the persistent connection, and this one accepts it",
            "write STLS=fcl",
        )),
        LinkPlan::Connect(_) => Ok(TlsSide::Dials),
        LinkPlan::Listen(_) => Ok(TlsSide::Accepts),
        LinkPlan::Command(_) => Ok(one.unwrap_or(TlsSide::Dials)),
        LinkPlan::Stdio => Ok(one.unwrap_or(TlsSide::Accepts)),
        LinkPlan::Device(Device::Both { line, .. }) if line.checked == Checked::Never => {
            Err(Problem::new(
                "with check=no the line's errors pass, and TLS would end at each",
                "leave check=no out",
            ))
        }
        LinkPlan::Device(device) => one.ok_or_else(|| {
            let what = match device {
                Device::Pair { .. } => "two FIFOs",
                Device::Both { .. } => "a device",
            };
            Problem::new(
                format!("neither end of {what} dials, and TLS has two sides"),
                "write STLS=fsv at one end and STLS=fcl at the other",
            )
        }),
    }
}

fn not_a_side(item: &str) -> Problem {
    match item {
        "-fsv" | "-fcl" => Problem::unsupported(
            format!("{item}, which goes on in clear where the peer does not encrypt,"),
            format!("write STLS={}: then only encrypted connections come up", &item[1..]),
        ),
        _ if item.starts_with("sslway") => Problem::unsupported(
            "sslway",
            "leave it out: TLS is built in, and TLSCONF=key:FILE,cert:FILE,ca:FILE names its files",
        ),
        _ => Problem::new(
            format!("{} is no side of the persistent connection", quoted(item)),
            "write STLS=fsv at the end that makes it, STLS=fcl at the end that accepts it",
        ),
    }
}

/// Where a file that a word names is: as [`super::files`], inside a parameter file relative to that.
fn beside(word: &Word, name: &str) -> PathBuf {
    match &word.origin {
        WordOrigin::File { path, .. } => path.parent().unwrap_or(Path::new("")).join(name),
        WordOrigin::Arguments => PathBuf::from(name),
    }
}

/// The peers of a file.
fn listed(path: &Path, files: &dyn Files) -> Result<Vec<KnownPeer>, Problem> {
    let name = path.to_string_lossy();
    let bytes = files.read(path, PEERS_FILE_BYTES + 1).map_err(|error| {
        Problem::new(
            format!("cannot read {}: {error}", quoted(&name)),
            "make it: a line NAME SHA256:... for each peer",
        )
    })?;
    if bytes.len() as u64 > PEERS_FILE_BYTES {
        return Err(Problem::new(
            format!("{} has more than {PEERS_FILE_BYTES} bytes", quoted(&name)),
            "name a file with a line NAME SHA256:... for each peer",
        ));
    }
    peers::parse(&String::from_utf8_lossy(&bytes)).map_err(|problem| problem.of_file(&name))
}

/// `64M`: after how many bytes a new key is taken.
fn rekey_bytes(value: &str) -> Result<u64, Problem> {
    let (digits, unit) = match value.as_bytes() {
        [.., b'K'] => (&value[..value.len() - 1], 1 << 10),
        [.., b'M'] => (&value[..value.len() - 1], 1 << 20),
        [.., b'G'] => (&value[..value.len() - 1], 1 << 30),
        _ => (value, 1),
    };
    let bytes = digits.parse().ok().and_then(|number: u64| number.checked_mul(unit));
    bytes.filter(|bytes| REKEY_BYTES.contains(bytes)).ok_or_else(|| {
        Problem::new(
            format!("rekey:{} is no number of bytes from 64K to 128G", plain(value)),
            "write rekey:1G, or leave it out: a new key is taken after 128G",
        )
    })
}

fn limited(count: usize, what: &str) -> Result<(), Problem> {
    if count < AUTHORITY_ITEMS_MAX {
        return Ok(());
    }
    Err(Problem::new(
        format!("{what}: is given more than {AUTHORITY_ITEMS_MAX} times"),
        "put the certificates into one file, and name fewer peers",
    ))
}

fn twice(what: &str) -> Problem {
    Problem::new(format!("{what}: is given twice"), "keep one of the two")
}

fn example(what: &str) -> &'static str {
    match what {
        "peer" => "SHA256:..., the fingerprint that `sockmux-uring keygen` prints at the other end",
        "name" => "HOST",
        "rekey" => "1G",
        _ => "FILE",
    }
}
