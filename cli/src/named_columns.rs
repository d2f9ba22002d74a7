//! Names of columns as they are typed: `--column ROLE=NAME`.

use blip2_dataset::corpus::columns::ColumnNames;
use serde_json::Value;

use crate::error::CliError;

/// Names with what was typed over them, of these roles: fields of [`ColumnNames`].
///
/// # Errors
/// Usage: it is no role, none of these, or cannot be called so.
pub(crate) fn typed_over(
    names: &ColumnNames,
    typed: &[String],
    roles: &[&str],
) -> Result<ColumnNames, CliError> {
    let mut fields = serde_json::to_value(names).map_err(|error| CliError::usage(error.to_string()))?;
    for named in typed {
        let (role, name) = named.split_once('=').unwrap_or((named, ""));
        if !roles.contains(&role) {
            let roles = roles.join(", ");
            return Err(CliError::usage(format!(
                "--column {named}: one of {roles}, then `=` and the column's name"
            )));
        }
        fields[role] = Value::from(name);
    }
    let read: Result<ColumnNames, _> = serde_json::from_value(fields);
    let read = read.map_err(|error| CliError::usage(format!("--column {}: {error}", typed.join(" "))))?;
    Ok(ColumnNames { captions_too: names.captions_too, ..read })
}

#[cfg(test)]
mod tests {
    use blip2_dataset::corpus::columns::HashOf;

    use super::*;

    fn typed(names: &ColumnNames, column: &[&str]) -> Result<ColumnNames, String> {
        let column: Vec<String> = column.iter().copied().map(Into::into).collect();
        let roles = ["image", "captions", "question", "sha256", "sha256_of"];
        typed_over(names, &column, &roles).map_err(|error| error.to_string())
    }

    #[test]
    fn columns_are_named_over_others_and_switched_off() {
        let of_run = ColumnNames { answers: "a".into(), captions_too: true, ..ColumnNames::default() };
        let found =
            typed(&of_run, &["image=photo", "question=q", "captions=", "sha256_of=download"]).unwrap();
        let expected = ColumnNames {
            image: "photo".into(),
            question: "q".into(),
            captions: String::new(),
            sha256_of: HashOf::Download,
            ..of_run.clone()
        };
        assert_eq!(found, expected);
        assert_eq!(typed(&of_run, &[]).unwrap(), of_run);
    }

    #[test]
    fn what_is_no_role_or_no_choice_is_refused_with_those_that_are() {
        let refused = |column| typed(&ColumnNames::default(), &[column]).unwrap_err();
        for other in ["picture=x", "key=x"] {
            let error = refused(other);
            assert!(error.contains(&format!("--column {other}: one of image, captions")), "{error}");
        }
        let error = refused("sha256_of=other");
        assert!(error.contains("other") && error.contains("download"), "{error}");
    }
}
