//! The tunnels that clients may take: their hello is done, they have a connection, and neither end leaves.

use std::collections::HashMap;

use crate::session::Session;
use crate::worker::message::LedTo;
use crate::worker::stream::tunnel::Tunnels;
use crate::worker::table::Key;

impl Tunnels {
    /// Tunnels whose hello is done, in that order.
    pub(in crate::worker) fn up(&self) -> &[Key] {
        &self.up
    }

    /// The sessions of [`Tunnels::up`].
    pub(in crate::worker::stream) fn up_sessions(&self) -> impl Iterator<Item = &Session> {
        self.up.iter().filter_map(|&key| Some(&self.table.get(key)?.session))
    }

    /// How often [`Tunnels::up`] has changed, and one without a connection was given up.
    pub(in crate::worker) fn up_changes(&self) -> u64 {
        self.up_changes
    }

    pub(super) fn add_up(&mut self, key: Key) {
        self.up.push(key);
        self.up_changes += 1;
    }

    /// A tunnel without a connection was given up.
    pub(super) fn note_change(&mut self) {
        self.up_changes += 1;
    }

    /// Takes a tunnel out. `true`: it was the last one.
    pub(super) fn remove_up(&mut self, key: Key) -> bool {
        let before = self.up.len();
        self.up.retain(|&up| up != key);
        self.up_changes += u64::from(self.up.len() != before);
        self.up.is_empty() && before > 0
    }

    /// The tunnels that are up, by the names of their peers.
    pub(in crate::worker) fn up_by_name(&self) -> HashMap<&str, Vec<Key>> {
        let mut by_name: HashMap<&str, Vec<Key>> = HashMap::new();
        for &key in self.up() {
            if let Some(name) = self.peer_of(key).name {
                by_name.entry(name).or_default().push(key);
            }
        }
        by_name
    }

    /// Whether clients of the entrance at this port, which leads there, have a tunnel.
    pub(in crate::worker) fn have_one_for(
        &self,
        by_name: &HashMap<&str, Vec<Key>>,
        (port, led_to): (u16, &LedTo),
    ) -> bool {
        let may_take = |key: &Key| self.may_take(*key, port, led_to);
        match led_to {
            LedTo::Peers(names) => {
                let of_names = names.iter().filter_map(|name| by_name.get(&**name));
                of_names.flatten().any(may_take)
            }
            LedTo::Any | LedTo::Tunnel(_) => self.up().iter().any(may_take),
        }
    }
}
