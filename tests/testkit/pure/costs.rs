//! A table of the costs of fixed work, in counts, each with its bound.

/// One line of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// The work, and what is counted.
    pub(crate) name: &'static str,
    /// The count when the bound was set, for the reader.
    pub(crate) measured: f64,
    /// The highest count allowed.
    pub(crate) bound: f64,
}

/// A count that is the same in every run: it may grow by a tenth.
pub(crate) const fn exact(name: &'static str, measured: f64) -> Cost {
    Cost { name, measured, bound: measured * 1.1 }
}

/// A count that depends on scheduling: the bound is given.
pub(crate) const fn bounded(name: &'static str, measured: f64, bound: f64) -> Cost {
    Cost { name, measured, bound }
}

/// Whether each figure is within its bound.
pub(crate) fn all_within(table: &[Cost], figures: &[(String, f64)]) -> bool {
    wrong(table, figures).is_empty()
}

/// Prints the table (`cargo test -- --nocapture`).
///
/// # Panics
/// If a figure is above its bound, is in no line of the table, or is missing.
pub(crate) fn check(table: &[Cost], figures: &[(String, f64)]) {
    println!("{:<50} {:>10} {:>10} {:>10}", "", "now", "measured", "bound");
    for (name, now) in figures {
        let cost = table.iter().find(|cost| cost.name == name);
        let [measured, bound] = [cost.map(|cost| cost.measured), cost.map(|cost| cost.bound)]
            .map(|figure| figure.map(text).unwrap_or_default());
        println!("{name:<50} {:>10} {measured:>10} {bound:>10}", text(*now));
    }
    let wrong = wrong(table, figures);
    assert!(wrong.is_empty(), "work costs more than it may:\n{}", wrong.join("\n"));
}

fn wrong(table: &[Cost], figures: &[(String, f64)]) -> Vec<String> {
    let above = figures.iter().filter_map(|(name, now)| {
        let now_text = text(*now);
        match table.iter().find(|cost| cost.name == name) {
            None => Some(format!("{name}: {now_text} has no bound")),
            Some(cost) if *now <= cost.bound => None,
            Some(cost) => {
                Some(format!("{name}: {now_text}, at most {} is allowed", text(cost.bound)))
            }
        }
    });
    let missing = table
        .iter()
        .filter(|cost| !figures.iter().any(|(name, _)| name == cost.name))
        .map(|cost| format!("{}: there is none any more; take its line out", cost.name));
    above.chain(missing).collect()
}

fn text(figure: f64) -> String {
    if figure.fract() == 0.0 { format!("{figure:.0}") } else { format!("{figure:.3}") }
}
