//! One table for each load: medians over the rounds, ratios within a round.

use super::load::{Load, Sample};
use super::stats::median;

/// A way's name and its samples by round.
pub(crate) type Measured = (&'static str, Vec<Sample>);

/// Prints the figures of each way; the others are compared with the first.
pub(crate) fn print(load: Load, ways: &[Measured]) {
    println!();
    print!("{:28}{:>10}{:>11}", load.title(), load.columns()[0], "of direct");
    for column in &load.columns()[1..] {
        print!("{column:>15}");
    }
    println!();
    let direct = &ways[0].1;
    for (name, samples) in ways {
        let rates = samples.iter().zip(direct).map(|(sample, direct)| sample[0] / direct[0]);
        let ratio = median(&rates.collect::<Vec<_>>());
        print!("{name:28}{:>10.2}{ratio:>10.2}x", column(samples, 0));
        for index in 1..load.columns().len() {
            print!("{:>15}", figure(column(samples, index)));
        }
        println!();
    }
}

fn column(samples: &[Sample], index: usize) -> f64 {
    median(&samples.iter().map(|sample| sample[index]).collect::<Vec<_>>())
}

/// Three digits are more than a round on a shared machine is worth.
fn figure(value: f64) -> String {
    match value {
        value if value.is_nan() => "-".into(),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
