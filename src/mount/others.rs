//! Whether others than the mounter can be let in, each judged by the kernel as themselves.

use super::{MountConfig, MountError};
use crate::target::live::{LiveSource, Yama};

/// What `allow_other` needs.
///
/// # Errors
/// `CannotJudge`, `YamaJudgesUs`.
pub(super) fn check(
    config: &MountConfig,
    source: &LiveSource,
    yama: Yama,
) -> Result<(), MountError> {
    if !config.allow_other {
        return Ok(());
    }
    if !source.may_act_as_others() {
        return Err(MountError::CannotJudge);
    }
    match yama {
        Yama::Off => Ok(()),
        Yama::Scope(_) | Yama::Unknown if config.ignore_yama => Ok(()),
        Yama::Scope(scope) => Err(MountError::YamaJudgesUs(scope.to_string())),
        Yama::Unknown => Err(MountError::YamaJudgesUs("unknown".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::common::clock::ManualClock;
    use crate::target::live::SourceOptions;

    /// SEMANTICS: `allow_other` is refused where Yama judges the daemon.
    #[test]
    fn yama_is_named_where_it_would_judge_the_daemon() {
        let clock = Arc::new(ManualClock::new());
        let source = LiveSource::new(SourceOptions::default(), clock, Arc::default()).unwrap();
        let check = |options: &str, yama| {
            let config = MountConfig::parse([options]).unwrap();
            check(&config, &source, yama).map_err(|error| error.to_string())
        };
        for yama in [Yama::Off, Yama::Scope(1), Yama::Unknown] {
            assert_eq!(check("", yama), Ok(()), "nobody else may enter");
        }
        if !source.may_act_as_others() {
            let refused = check("allow_other", Yama::Off).unwrap_err();
            assert!(refused.contains("CAP_SETUID"), "{refused}");
            return;
        }
        assert_eq!(check("allow_other", Yama::Off), Ok(()));
        for yama in [Yama::Scope(1), Yama::Scope(3), Yama::Unknown] {
            let refused = check("allow_other", yama).unwrap_err();
            assert!(refused.contains("yama=ignore"), "{refused}");
            assert!(!refused.contains('\n'), "{refused}");
            assert_eq!(check("allow_other,yama=ignore", yama), Ok(()));
        }
    }
}
