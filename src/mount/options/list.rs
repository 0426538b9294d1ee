//! Lists of options, as they stand after `-o`.

use super::OptionError;

/// The options of a comma-separated list. A comma within double quotes belongs to its option (mount(8), for
/// the categories of a security context), and so do the quotes.
///
/// # Errors
/// Where a quote is not closed.
pub(super) fn split(list: &str) -> Result<Vec<&str>, OptionError> {
    let mut is_quoted = false;
    let ends = |letter| {
        is_quoted ^= letter == '"';
        letter == ',' && !is_quoted
    };
    let mut options: Vec<&str> = list.split(ends).collect();
    if is_quoted {
        let option = options.pop().unwrap_or_default().to_owned();
        return Err(OptionError::Quote { option });
    }
    options.retain(|option| !option.is_empty());
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_part_options_but_not_within_quotes() {
        let table: [(&str, &[&str]); 7] = [
            ("", &[]),
            (",a,,b,", &["a", "b"]),
            ("a=b=c,d", &["a=b=c", "d"]),
            (
                "context=\"u:r:t:s0:c1,c2\"",
                &["context=\"u:r:t:s0:c1,c2\""],
            ),
            ("ro,context=\"a,b\",dev", &["ro", "context=\"a,b\"", "dev"]),
            ("x=\"\",y", &["x=\"\"", "y"]),
            ("a=\"b,c\"d\",e\",f", &["a=\"b,c\"d\",e\"", "f"]),
        ];
        for (list, options) in table {
            assert_eq!(split(list).unwrap(), options, "{list}");
        }
    }

    #[test]
    fn a_quote_that_is_not_closed_is_named_with_its_option() {
        for (list, option) in [
            ("ro,context=\"a,b", "context=\"a,b"),
            ("\"", "\""),
            ("fsname=a\"b\"c\",ro", "fsname=a\"b\"c\",ro"),
        ] {
            let option = option.to_owned();
            assert_eq!(split(list), Err(OptionError::Quote { option }), "{list}");
        }
    }
}
