//! When a registration that failed is tried again (RFC 5626 §4.5).

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

/// The wait doubles from here …
const BASE: Duration = Duration::from_secs(30);
/// … to here.
const LONGEST: Duration = Duration::from_secs(1800);
/// A registrar that restarts is back in a moment; the spread keeps its users from coming all at once.
const SOON: (f64, f64) = (1.0, 3.0);
/// What a Retry-After is worth at most: one slip of a registrar must not keep an account away for days.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// A registrar cannot make us ask more often than this.
pub(super) const LEAST_REFRESH: Duration = Duration::from_secs(1);

/// A moment, for what is probably over by then.
pub(super) fn soon(random: &mut StdRng) -> Duration {
    Duration::from_secs_f64(random.random_range(SOON.0..SOON.1))
}

/// How long to wait after a failure with this code, when `failures` came before it in a row; `None`: a further try would
/// be refused as well.
///
/// What may pass by itself is tried again soon, then after 30 s · 2ⁿ; a refusal waits as long as its second failure. Half of
/// each wait is random. A Retry-After says it all, up to an hour.
pub(super) fn wait(code: u16, failures: u32, retry_after: Option<u32>, random: &mut StdRng) -> Option<Duration> {
    if matches!(code, 401 | 407) {
        return None; // the password is wrong: trying on gets accounts locked
    }
    if let Some(seconds) = retry_after {
        let asked = Duration::from_secs(seconds.into()).min(LONGEST_RETRY_AFTER);
        return Some(asked.mul_f64(random.random_range(1.0..1.1)) + soon(random));
    }
    let may_pass = matches!(code, 200..=299 | 408 | 480 | 500..=599);
    let steps = if may_pass { failures.checked_sub(1) } else { Some(failures) };
    let Some(steps) = steps else { return Some(soon(random)) };
    let upper = BASE.saturating_mul(2_u32.saturating_pow(steps)).min(LONGEST);
    Some(upper.mul_f64(random.random_range(0.5..1.0)))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn waits_by_code_and_failures_before() {
        // (code, failures before, Retry-After, at least, at most) in seconds
        let table = [
            (408, 0, None, 1.0, 3.0),
            (503, 0, None, 1.0, 3.0),
            (503, 1, None, 15.0, 30.0),
            (503, 2, None, 30.0, 60.0),
            (500, 6, None, 480.0, 960.0),
            (500, 7, None, 900.0, 1800.0),
            (500, 40, None, 900.0, 1800.0),
            (503, u32::MAX, None, 900.0, 1800.0),
            (403, 0, None, 15.0, 30.0),
            (404, 1, None, 30.0, 60.0),
            (302, 0, None, 15.0, 30.0),
            (503, 5, Some(120), 121.0, 135.0),
            (503, 0, Some(0), 1.0, 3.0),
            (503, 0, Some(u32::MAX), 3601.0, 3963.0),
        ];
        for (code, failures, retry_after, least, most) in table {
            let mut seen = Vec::new();
            for seed in 0..200 {
                let wait = wait(code, failures, retry_after, &mut StdRng::seed_from_u64(seed)).expect("a wait");
                assert!((least..=most).contains(&wait.as_secs_f64()), "{code} after {failures}: {wait:?}");
                seen.push(wait);
            }
            seen.dedup();
            assert!(seen.len() > 150, "{code}: accounts that fail together do not come back together");
        }
        for code in [401, 407] {
            assert_eq!(wait(code, 0, Some(5), &mut StdRng::seed_from_u64(1)), None);
        }
    }
}
