//! Seats: streams at once of one client and of all together, as `MAXIMA=` says.
//!
//! What a stream is made of holds its seat, and gives it back when it is dropped: nobody has to
//! remember to.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use crate::cli::plan::Maxima;

/// The seats of a process.
#[derive(Debug)]
pub struct Seats {
    maxima: Maxima,
    /// Whose they are, as messages say it behind the parameter.
    whose: &'static str,
    taken: Rc<RefCell<Taken>>,
}

/// Holds an entry for each client with a stream, so never more than there are streams.
#[derive(Debug, Default)]
struct Taken {
    by_client: HashMap<IpAddr, u32>,
    together: u32,
}

/// One stream's seat. Dropping it gives it back.
#[derive(Debug)]
pub struct Seat {
    client: IpAddr,
    taken: Rc<RefCell<Taken>>,
    /// The one that the stream has elsewhere.
    beside: Option<Box<Seat>>,
}

impl Seat {
    /// Holds one seat besides another, where there are two.
    pub fn both(seat: Option<Seat>, other: Option<Seat>) -> Option<Seat> {
        match (seat, other) {
            (Some(mut seat), Some(other)) => {
                // One that holds another already holds this one through it.
                seat.beside =
                    Seat::both(Some(other), seat.beside.take().map(|held| *held)).map(Box::new);
                Some(seat)
            }
            (seat, other) => seat.or(other),
        }
    }
}

impl Seats {
    /// As many seats as these.
    pub fn new(maxima: Maxima) -> Seats {
        Seats { maxima, whose: "", taken: Rc::default() }
    }

    /// The same, of one exit.
    pub fn of_exit(maxima: Maxima) -> Seats {
        Seats { whose: " of its exit", ..Seats::new(maxima) }
    }

    /// Takes a seat for a stream of this client. All whose address is not known are one client.
    /// `None`: nothing is limited, and nothing counted.
    ///
    /// # Errors
    /// The reason to refuse the stream: all seats are taken.
    pub fn take(&self, client: Option<IpAddr>) -> Result<Option<Seat>, String> {
        if self.maxima.per_client.is_none() && self.maxima.together.is_none() {
            return Ok(None);
        }
        let unknown = IpAddr::from([0, 0, 0, 0]);
        let client = client.map_or(unknown, |client| client.to_canonical());
        let whose = self.whose;
        let mut taken = self.taken.borrow_mut();
        if let Some(max) = self.maxima.together.filter(|max| taken.together >= *max) {
            return Err(format!("{max} streams are open already (MAXIMA=delegated:{max}{whose})"));
        }
        let of_client = taken.by_client.get(&client).copied().unwrap_or(0);
        if let Some(max) = self.maxima.per_client.filter(|max| of_client >= *max) {
            return Err(format!(
                "client {client} has {max} streams already (MAXIMA=conpch:{max}{whose})"
            ));
        }
        taken.by_client.insert(client, of_client + 1);
        taken.together += 1;
        Ok(Some(Seat { client, taken: Rc::clone(&self.taken), beside: None }))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.taken.borrow_mut();
        taken.together -= 1;
        match taken.by_client.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                taken.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn each_client_has_its_own_seats() {
        let seats = Seats::new(Maxima { per_client: Some(2), together: None, services: None });
        let first = seats.take(client("10.0.0.1")).unwrap();
        let _second = seats.take(client("::ffff:10.0.0.1")).unwrap();
        let reason = seats.take(client("10.0.0.1")).unwrap_err();
        assert_eq!(reason, "client 10.0.0.1 has 2 streams already (MAXIMA=conpch:2)");
        assert!(seats.take(client("10.0.0.2")).is_ok());
        drop(first);
        assert!(seats.take(client("10.0.0.1")).is_ok());
    }

    #[test]
    fn clients_without_an_address_are_one() {
        let seats = Seats::new(Maxima { per_client: Some(1), together: None, services: None });
        let seat = seats.take(None).unwrap();
        assert!(seats.take(None).is_err());
        drop(seat);
        assert!(seats.take(None).is_ok());
    }

    #[test]
    fn all_clients_share_those_of_all_together() {
        let seats = Seats::new(Maxima { per_client: None, together: Some(2), services: None });
        let held = ["10.0.0.1", "::1"].map(|of| seats.take(client(of)).unwrap());
        let reason = seats.take(client("10.0.0.3")).unwrap_err();
        assert_eq!(reason, "2 streams are open already (MAXIMA=delegated:2)");
        drop(held);
        assert!(seats.take(client("10.0.0.3")).is_ok());
        assert!(seats.taken.borrow().by_client.is_empty());
    }

    #[test]
    fn two_seats_are_held_as_one() {
        let maxima = Maxima { per_client: Some(1), together: None, services: None };
        let all = [Seats::new(maxima), Seats::of_exit(maxima), Seats::of_exit(maxima)];
        let is_free = |seats: &Seats| seats.take(client("10.0.0.1")).is_ok();
        let [a, b, c] = all.each_ref().map(|seats| seats.take(client("10.0.0.1")).unwrap());
        let reason = all[1].take(client("10.0.0.1")).unwrap_err();
        assert!(reason.ends_with("(MAXIMA=conpch:1 of its exit)"), "{reason}");
        let held = Seat::both(Seat::both(a, b), Seat::both(None, c));
        assert!(!all.iter().any(is_free));
        drop(held);
        assert!(all.iter().all(is_free));
    }

    #[test]
    fn without_maxima_nothing_is_counted() {
        assert!(Seats::new(Maxima::default()).take(client("10.0.0.1")).unwrap().is_none());
    }
}
