//! The documents keep to what there is.

use std::path::Path;

use crate::support::tests;

tests![every_test_that_semantics_names_exists];

/// Each test that `docs/SEMANTICS.md` names is there.
fn every_test_that_semantics_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/SEMANTICS.md")).unwrap();
    let mut seen = 0;
    for name in text.split('`').skip(1).step_by(2) {
        let Some((module, test)) = name.rsplit_once("::") else {
            continue;
        };
        let plain = |name: &str| {
            name.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_:".contains(&b))
        };
        if !plain(name) {
            continue;
        }
        let path = match module.strip_prefix("src::") {
            Some(module) => root.join("src").join(module.replace("::", "/")),
            None => root.join("mount-tests").join(module.replace("::", "/")),
        };
        let source = [path.with_extension("rs"), path.join("mod.rs")]
            .iter()
            .find_map(|path| std::fs::read_to_string(path).ok())
            .unwrap_or_else(|| panic!("no module for `{name}`"));
        assert!(source.contains(&format!("fn {test}()")), "no test `{name}`");
        seen += 1;
    }
    assert!(seen > 40, "only {seen} tests are named");
}
