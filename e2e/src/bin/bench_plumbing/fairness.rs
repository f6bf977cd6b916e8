//! How alike tenants are served that do not want alike much.

/// What was measured.
pub(crate) struct Fairness {
    /// Jain's index (R. Jain, D. Chiu, W. Hawe, DEC-TR-301, 1984) over what each got of what it should have got:
    /// its demand, or its max-min fair share where that is less. 1 where all are served alike.
    pub(crate) jain: f64,
    /// The least that a tenant with a bounded demand got of it.
    pub(crate) least_served: f64,
}

/// Of tenants with what they got and what they wanted; infinite where nothing would be enough.
pub(crate) fn fairness(tenants: &[(f64, f64)]) -> Fairness {
    let share = fair_share(tenants.iter().map(|(got, _)| got).sum(), tenants);
    let served = tenants.iter().map(|(got, demand)| got / demand.min(share));
    let sum: f64 = served.clone().sum();
    let squares: f64 = served.map(|served| served * served).sum();
    let bounded = tenants.iter().filter(|(_, demand)| demand.is_finite());
    Fairness {
        jain: sum.powi(2) / (tenants.len() as f64 * squares),
        least_served: bounded.map(|(got, demand)| got / demand).fold(f64::INFINITY, f64::min),
    }
}

/// What each gets at most when `total` is shared so that nobody can get more at the cost of one who gets less
/// (max-min fairness: from the smallest demand on, each gets it or an equal part of what is left).
fn fair_share(total: f64, tenants: &[(f64, f64)]) -> f64 {
    let mut demands: Vec<f64> = tenants.iter().map(|(_, demand)| *demand).collect();
    demands.sort_by(f64::total_cmp);
    let mut left = total;
    for (number, demand) in demands.iter().enumerate() {
        let part = left / (demands.len() - number) as f64;
        if *demand > part {
            return part;
        }
        left -= demand;
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(others: f64, greedy: f64) -> Fairness {
        let mut tenants = vec![(others, 40.0); 20];
        tenants.push((greedy, f64::INFINITY));
        fairness(&tenants)
    }

    #[test]
    fn tenants_that_get_what_they_want_beside_one_that_gets_the_rest_are_served_alike() {
        let fair = of(40.0, 1000.0);
        assert!((fair.jain - 1.0).abs() < 1e-9 && (fair.least_served - 1.0).abs() < 1e-9);
        let short = of(20.0, 20.0);
        assert!((short.jain - 1.0).abs() < 1e-9 && (short.least_served - 0.5).abs() < 1e-9);
    }

    #[test]
    fn tenants_that_all_starve_alike_are_not_served_alike() {
        assert!(of(4.0, 1720.0).jain < 0.25);
        assert!(of(0.0, 1800.0).jain < 0.1);
    }
}
