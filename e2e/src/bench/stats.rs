//! What is computed of measured figures.

/// The middle of values, in whatever order; NaN of none.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let values = sorted(values);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

/// The arithmetic mean; NaN of none.
#[must_use]
pub fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = values.into_iter().fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { f64::NAN } else { sum / f64::from(count) }
}

/// In ascending order.
#[must_use]
pub fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The rates of successive tenths: of things that ended at these times after the start, in seconds and in
/// ascending order, how many a second each tenth of them had. Empty where there are too few to be cut up.
#[must_use]
pub fn rates_of_tenths(ends: &[f64]) -> Vec<f64> {
    if ends.len() < 10 {
        return Vec::new();
    }
    let bound = |tenth: usize| ends.len() * tenth / 10;
    let at = |count: usize| if count == 0 { 0.0 } else { ends[count - 1] };
    (0..10)
        .map(|tenth| {
            let (from, to) = (bound(tenth), bound(tenth + 1));
            (to - from) as f64 / (at(to) - at(from)).max(f64::EPSILON)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_follow_an_outlier_and_the_mean_does() {
        assert_eq!(median([3.0, 1.0, 1000.0]), 3.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(mean([1.0, 2.0, 6.0]), 3.0);
        assert!(
            median([]).is_nan() && mean([]).is_nan(),
            "of nothing there is no figure that could meet a goal"
        );
    }

    #[test]
    fn tenths_show_a_rate_that_falls() {
        // One a second at first, one in two seconds later.
        let ends: Vec<f64> =
            (1..=50).map(f64::from).chain((1..=50).map(|n| 50.0 + 2.0 * f64::from(n))).collect();
        let rates = rates_of_tenths(&ends);
        assert_eq!(rates[..5], [1.0; 5]);
        assert_eq!(rates[5..], [0.5; 5]);
    }

    #[test]
    fn every_end_is_in_one_tenth_whatever_their_number() {
        let ends: Vec<f64> = (1..=17).map(f64::from).collect();
        assert_eq!(rates_of_tenths(&ends), [1.0; 10]);
        assert!(rates_of_tenths(&ends[..9]).is_empty());
    }
}
