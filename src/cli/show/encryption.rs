//! Encryption and peers in the output of `--check`.

use std::path::Path;

use super::super::error::plain;
use super::super::plan::{
    Authority, Encryption, Exit, KnownPeer, PeerOptions, Plan, Proof, TlsSide,
};

/// Most peers of the command line that a line of the log names.
const PEERS_LOGGED: usize = 4;

/// The lines of the section. `exits`: those of the plan, to which options of peers refer.
pub(super) fn lines(encryption: &Encryption, exits: &[Exit]) -> Vec<String> {
    let Encryption { side, proof, peers, peers_file, listed, authority, rekey_bytes } = encryption;
    let side = match side {
        TlsSide::Dials => "this end begins the handshake",
        TlsSide::Accepts => "this end answers the handshake",
    };
    let mut lines = vec![format!("TLS 1.3; {side}, and both prove who they are")];
    lines.push(match proof {
        Proof::Secret(path) => {
            format!("peer: whoever has the secret in {}", shown(path))
        }
        Proof::Key { key, certificate: None } => format!("own key: {}", shown(key)),
        Proof::Key { key, certificate: Some(certificate) } => {
            format!("own key: {}, with the certificate in {}", shown(key), shown(certificate))
        }
    });
    lines.extend(peers.iter().map(|peer| format!("peer: {}", known(peer))));
    if let Some(file) = peers_file {
        let file = shown(file);
        lines.push(match listed.len() {
            0 => format!("peers: those in {file}, which lists none now"),
            count => format!("peers: those in {file}, which lists {count} now"),
        });
        lines.extend(listed.iter().flat_map(|peer| listed_lines(peer, exits)));
    }
    lines.extend(authority.iter().map(|authority| format!("peers: {}", by_authority(authority))));
    lines.extend(rekey_bytes.map(|bytes| format!("a new key after {bytes} bytes")));
    lines
}

/// Who may be the peer, in one line for the log.
pub fn peers(encryption: &Encryption) -> String {
    if let Proof::Secret(_) = encryption.proof {
        return "whoever has the secret".to_owned();
    }
    let mut all: Vec<String> = encryption.peers.iter().take(PEERS_LOGGED).map(known).collect();
    let more = encryption.peers.len().saturating_sub(PEERS_LOGGED);
    all.extend((more > 0).then(|| format!("{more} more")));
    all.extend(
        encryption
            .peers_file
            .iter()
            .map(|file| format!("those in {} ({} now)", shown(file), encryption.listed.len())),
    );
    all.extend(encryption.authority.iter().map(by_authority));
    all.join(", ")
}

fn known(peer: &KnownPeer) -> String {
    match &peer.name {
        Some(name) => format!("{name}  {}", peer.fingerprint),
        None => peer.fingerprint.to_string(),
    }
}

/// A peer of the file, and what its options say.
fn listed_lines(peer: &KnownPeer, all: &[Exit]) -> Vec<String> {
    let PeerOptions { streams, exits, entrances, listen } = &*peer.options;
    let mut lines = vec![format!("   {}", known(peer))];
    let mut add = |line: String| lines.push(format!("      {line}"));
    if let Some(streams) = streams {
        add(format!("has at most {streams} streams at once"));
    }
    if exits.is_some() {
        let may_use = |exit: &&Exit| {
            exit.is_for_peer(peer.name.as_deref()) && peer.options.permits_exit(exit)
        };
        let names: Vec<_> = all.iter().filter(may_use).map(|exit| plain(&exit.name)).collect();
        add(match names.is_empty() {
            true => "uses no exit".to_owned(),
            false => format!("uses the exits {}", names.join(", ")),
        });
    }
    if let Some(ports) = entrances {
        add(match ports.is_empty() {
            true => "gets no clients of entrances".to_owned(),
            false => format!("gets clients of entrances at ports {ports}"),
        });
    }
    if !listen.is_empty() {
        add(format!("may ask for entrances at ports {listen}"));
    }
    lines
}

/// What an exit is called in a peers file, if there is one.
pub(super) fn name_for_peers(exit: &Exit, plan: &Plan) -> Option<String> {
    let encryption = plan.encryption.as_ref()?;
    encryption.peers_file.as_ref()?;
    Some(format!("   in the peers file: exits={}", plain(&exit.name)))
}

fn by_authority(authority: &Authority) -> String {
    let files: Vec<_> = authority.certificates.iter().map(|path| shown(path)).collect();
    let names: Vec<_> = authority.names.iter().map(|name| plain(name)).collect();
    let whose = match names.is_empty() {
        true => "anybody with a certificate".to_owned(),
        false => format!("{} by a certificate", names.join(" or ")),
    };
    format!("{whose} of the authority in {}", files.join(", "))
}

fn shown(path: &Path) -> String {
    plain(&path.to_string_lossy())
}
