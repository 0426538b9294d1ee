//! What is kept open for whoever comes next, and the one rule of how long.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

/// How long something is kept that nobody uses: long enough for the next step of a walk, and short
/// enough that nobody waits for a descriptor to be closed.
pub(crate) const KEPT_UNUSED: Duration = Duration::from_secs(1);

/// Values that were used a moment ago, the last ones only.
#[derive(Debug)]
pub(crate) struct Recent<K: Hash + Eq, V>(LruCache<K, (V, Duration)>);

impl<K: Hash + Eq, V> Recent<K, V> {
    /// Keeps at most `capacity` values.
    pub(crate) fn new(capacity: NonZeroUsize) -> Self {
        Self(LruCache::new(capacity))
    }

    /// The value of `key`, which is used `now`.
    pub(crate) fn get(&mut self, key: &K, now: Duration) -> Option<&V> {
        let (value, used) = self.0.get_mut(key)?;
        *used = now;
        Some(value)
    }

    /// Keeps a value, and returns the one that it pushes out.
    #[must_use = "dropping it may close descriptors"]
    pub(crate) fn push(&mut self, key: K, value: V, now: Duration) -> Option<V> {
        self.0.push(key, (value, now)).map(|(_, (value, _))| value)
    }

    /// Whether one more would push another out.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= self.0.cap().get()
    }

    /// Keeps the value of `key` no longer.
    #[must_use = "dropping it may close descriptors"]
    pub(crate) fn pop(&mut self, key: &K) -> Option<V> {
        self.0.pop(key).map(|(value, _)| value)
    }

    /// Takes all.
    pub(crate) fn take_all(&mut self) -> Vec<V> {
        let mut all = Vec::with_capacity(self.0.len());
        while let Some((_, (value, _))) = self.0.pop_lru() {
            all.push(value);
        }
        all
    }

    /// Takes what nobody has used for [`KEPT_UNUSED`], and says how long it is until there is more
    /// to take; `None` where nothing is left.
    pub(crate) fn take_unused(&mut self, now: Duration) -> (Vec<V>, Option<Duration>) {
        let mut unused = Vec::new();
        loop {
            let Some((_, (_, used))) = self.0.peek_lru() else {
                return (unused, None);
            };
            let left = (*used + KEPT_UNUSED).saturating_sub(now);
            if !left.is_zero() {
                return (unused, Some(left));
            }
            unused.extend(self.0.pop_lru().map(|(_, (value, _))| value));
        }
    }
}

/// The sooner of two times, where there are any.
pub(crate) fn sooner(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recent() -> Recent<u32, &'static str> {
        Recent::new(NonZeroUsize::new(2).expect("not zero"))
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let mut recent = recent();
        let second = Duration::from_secs(1);
        assert_eq!(recent.push(1, "one", Duration::ZERO), None);
        assert_eq!(recent.push(2, "two", second / 4), None);
        assert_eq!(recent.get(&1, second / 2), Some(&"one"));
        assert_eq!(
            recent.take_unused(second),
            (vec![], Some(second / 4)),
            "nobody was unused for so long"
        );
        assert_eq!(
            recent.take_unused(second * 5 / 4),
            (vec!["two"], Some(second / 4))
        );
        assert_eq!(recent.take_unused(second * 3), (vec!["one"], None));
        assert_eq!(recent.take_unused(second * 3), (vec![], None));
    }

    #[test]
    fn the_least_recently_used_is_pushed_out() {
        let mut recent = recent();
        for (key, value) in [(1, "one"), (2, "two")] {
            assert_eq!(recent.push(key, value, Duration::ZERO), None);
        }
        assert!(recent.is_full());
        recent.get(&1, Duration::ZERO);
        assert_eq!(recent.push(3, "three", Duration::ZERO), Some("two"));
        assert_eq!(recent.pop(&3), Some("three"));
        assert_eq!(recent.get(&3, Duration::ZERO), None);
        assert!(!recent.is_full());
    }
}
