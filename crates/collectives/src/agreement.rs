//! What the ranks of a job must agree on before they begin.

use crate::{Collective, CollectiveError};

/// Checks that all ranks bring the same value of each property, such as `("version", "0.1.0")`. All ranks get the
/// same result.
///
/// # Errors
/// [`CollectiveError::Differ`] names the first property that differs, with the ranks that differ from rank 0.
pub fn check_same(
    ranks: &dyn Collective,
    properties: &[(&str, String)],
) -> Result<(), CollectiveError> {
    if ranks.size() == 1 {
        return Ok(());
    }
    let json = |error: serde_json::Error| CollectiveError::Json(error.to_string());
    let all = ranks.gather(serde_json::to_vec(properties).map_err(json)?)?;
    let read = |bytes: &Vec<u8>| serde_json::from_slice::<Vec<(String, String)>>(bytes);
    let all = all.iter().map(read).collect::<Result<Vec<_>, _>>().map_err(json)?;
    for (i, (name, first)) in all[0].iter().enumerate() {
        let value = |rank: usize| all[rank].get(i).map_or("", |(_, value)| &**value);
        let others: Vec<usize> = (1..all.len()).filter(|&rank| value(rank) != first).collect();
        if let Some(&other) = others.first() {
            return Err(CollectiveError::Differ {
                property: name.clone(),
                first: first.clone(),
                ranks: named(&others),
                other: value(other).into(),
            });
        }
    }
    Ok(())
}

/// `rank 1`, or `ranks 1, 3`.
pub fn named(ranks: &[usize]) -> String {
    let numbers: Vec<String> = ranks.iter().map(ToString::to_string).collect();
    format!("rank{} {}", if ranks.len() == 1 { "" } else { "s" }, numbers.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Replica;

    #[test]
    fn a_property_that_differs_is_named_with_its_ranks() {
        let result = |replica: &Replica, other: &str| {
            let tokenizer = if replica.rank() % 2 == 1 { other } else { "a" };
            check_same(replica, &[("version", "1".into()), ("tokenizer", tokenizer.into())])
        };
        let result = &result;
        std::thread::scope(|scope| {
            for replica in Replica::on_host(4) {
                scope.spawn(move || {
                    assert_eq!(result(&replica, "a"), Ok(()));
                    let error = result(&replica, "b").unwrap_err();
                    assert!(error.is_of_all_ranks());
                    let error = error.to_string();
                    assert!(error.contains("tokenizer") && error.contains("ranks 1, 3"), "{error}");
                });
            }
        });
    }
}
