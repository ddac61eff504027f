//! Who the peers of tunnels are, by their keys, and what that lets them have here. Where a tunnel is not
//! encrypted its peer is nobody in particular.

use crate::policy::routing::StreamPeer;
use crate::tls::settings::Peer;
use crate::worker::message::LedTo;
use crate::worker::stream::tunnel::{Tunnel, Tunnels};
use crate::worker::table::Key;

impl Tunnels {
    /// The peer of a tunnel, by its key.
    pub(in crate::worker) fn peer_of(&self, key: Key) -> StreamPeer<'_> {
        self.table.get(key).map_or(StreamPeer::default(), Tunnel::stream_peer)
    }

    /// Whether a tunnel is there, and among those that an entrance leads to.
    pub(in crate::worker::stream) fn is_led_to(&self, key: Key, led_to: &LedTo) -> bool {
        let Some(tunnel) = self.table.get(key) else { return false };
        match led_to {
            LedTo::Any => true,
            LedTo::Peers(names) => {
                let name = tunnel.stream_peer().name;
                name.is_some_and(|name| names.iter().any(|other| other == name))
            }
            LedTo::Tunnel(only) => key == *only,
        }
    }

    /// Whether clients of the entrance at this port, which leads there, may take a tunnel. One that the
    /// peer has asked for is its own whatever its options say.
    pub(in crate::worker) fn may_take(&self, key: Key, port: u16, led_to: &LedTo) -> bool {
        let options = self.peer_of(key).options;
        self.is_led_to(key, led_to)
            && (matches!(led_to, LedTo::Tunnel(_))
                || options.is_none_or(|options| options.has_entrance(port)))
    }

    /// Whether the peers of two tunnels have shown the same key.
    pub(in crate::worker) fn have_same_key(&self, one: Key, other: Key) -> bool {
        let key = |tunnel| Some(&*self.table.get(tunnel)?.peer()?.fingerprint);
        key(one).is_some_and(|of_one| key(other) == Some(of_one))
    }
}

impl Tunnel {
    /// The peer as its streams are judged by; nobody in particular where the tunnel is not encrypted.
    pub(in crate::worker) fn stream_peer(&self) -> StreamPeer<'_> {
        self.peer().map_or(StreamPeer::default(), |peer| StreamPeer {
            name: peer.name.as_deref(),
            options: Some(&peer.options),
        })
    }

    /// The peer, by its key; of an encrypted tunnel only.
    fn peer(&self) -> Option<&Peer> {
        let (peer, _) = self.lane.transform.tls()?.peer()?;
        Some(peer)
    }

    /// Whether the peers file lets the peer have an entrance at this port.
    pub(in crate::worker) fn may_listen(&self, port: u16) -> bool {
        self.peer().is_some_and(|peer| peer.options.listen.contains(port))
    }
}
