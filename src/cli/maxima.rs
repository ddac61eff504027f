//! `MAXIMA=what:number[,what:number]*`: how many streams there may be at once, and in all.

use super::error::{Problem, plain, quoted};
use super::plan::Maxima;
use super::{number, suggest};

/// The supported items, by the original's names.
pub(super) const ITEMS: [&str; 3] = ["conpch", "delegated", "service"];

/// Items of the original about its processes, which are passed over.
pub(super) const IGNORED: [&str; 6] =
    ["contask", "ftpcc", "listen", "nntpcc", "standby", "udprelay"];

/// `MAXIMA=` parameters while they are read.
#[derive(Debug, Default)]
pub struct MaximaReader {
    maxima: Maxima,
}

impl MaximaReader {
    /// Reads the value of one parameter; things without effect go to `notices`.
    ///
    /// # Errors
    /// An unknown item, a number that is none or 0, an item set twice to different numbers.
    pub fn add(&mut self, value: &str, notices: &mut Vec<String>) -> Result<(), Problem> {
        value.split(',').try_for_each(|item| self.add_item(item.trim(), notices))
    }

    /// Whether `service` is among them.
    pub(crate) fn counts_services(&self) -> bool {
        self.maxima.services.is_some()
    }

    /// The numbers in the end.
    pub fn finish(self) -> Maxima {
        self.maxima
    }

    fn add_item(&mut self, item: &str, notices: &mut Vec<String>) -> Result<(), Problem> {
        let Some((what, number)) = item.split_once(':') else {
            return Err(Problem::new(
                format!("{} is not what:number", quoted(item)),
                "write for example MAXIMA=conpch:10",
            ));
        };
        let place = match what {
            "conpch" => &mut self.maxima.per_client,
            "delegated" => &mut self.maxima.together,
            "service" => &mut self.maxima.services,
            _ if IGNORED.contains(&what) => {
                notices.push(format!(
                    "MAXIMA={} has no effect: this program has nothing of the kind",
                    plain(item)
                ));
                return Ok(());
            }
            _ => {
                return Err(Problem::new(
                    format!("{} is not a number that can be set", quoted(what)),
                    suggest::remedy(what, &ITEMS),
                ));
            }
        };
        let number = streams(what, number)?;
        if let Some(before) = place.replace(number).filter(|before| *before != number) {
            return Err(Problem::new(
                format!("{what} is already set to {before}"),
                format!("keep one of the two {what} numbers"),
            ));
        }
        Ok(())
    }
}

fn streams(what: &str, text: &str) -> Result<u32, Problem> {
    match number::whole(text) {
        Some(streams) if streams > 0 => Ok(streams),
        _ => Err(Problem::new(
            format!("{} is not a number of streams", quoted(text)),
            format!("give 1 or more, as in {what}:100, or leave it out for any number"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<(Maxima, Vec<String>), Problem> {
        let (mut reader, mut notices) = (MaximaReader::default(), Vec::new());
        for value in values {
            reader.add(value, &mut notices)?;
        }
        Ok((reader.finish(), notices))
    }

    #[test]
    fn items_in_one_and_in_several_parameters() {
        for (values, per_client, together, notices) in [
            (&["conpch:5"][..], Some(5), None, 0),
            (&["conpch:5, delegated:100"], Some(5), Some(100), 0),
            (&["delegated:1", "conpch:2", "conpch:2"], Some(2), Some(1), 0),
            (&["listen:20,standby:3,ftpcc:1"], None, None, 3),
        ] {
            let (maxima, said) = read(values).unwrap();
            assert_eq!(maxima, Maxima { per_client, together, services: None }, "{values:?}");
            assert_eq!(said.len(), notices, "{said:?}");
        }
    }

    #[test]
    fn services_are_counted() {
        let (maxima, said) = read(&["service:1", "conpch:2"]).unwrap();
        assert_eq!((maxima.services, said.len()), (Some(1), 0));
    }

    #[test]
    fn faults_name_the_item_and_a_remedy() {
        for (values, wanted) in [
            (&["conpch"][..], "`conpch` is not what:number; write for example MAXIMA=conpch:10"),
            (&["conpch:0"], "`0` is not a number of streams; give 1 or more"),
            (&["conpch:"], "`` is not a number of streams"),
            (&["conpch:+5"], "`+5` is not a number of streams"),
            (&["delegated:5000000000"], "as in delegated:100"),
            (&["compch:5"], "`compch` is not a number that can be set; did you mean `conpch`?"),
            (&["conpch:1", "conpch:2"], "conpch is already set to 1; keep one"),
        ] {
            let message = read(values).unwrap_err().to_string();
            assert!(message.contains(wanted), "{values:?}: {message}");
        }
    }
}
