//! Runs the parts of a check one after the other.

use std::path::Path;
use std::process::Command;

use block_transformer_files::FileError;

use crate::child::{Ended, run_limited};
use crate::error::CheckError;
use crate::json::{read, write};
use crate::part::Part;
use crate::report::report;
use crate::result::{PartOutput, PartResult, PartState, output_path, result_path};
use crate::settings::CheckSettings;

/// Runs every part in a process of its own, `command(part)`, which must call
/// [`run_part`](crate::run_part). Writes to the folder `dir`: `settings.json`, and for every part
/// `NAME.json` and `NAME.log`, and `report.md`. `progress` gets the result of each part.
///
/// With `resume`, parts whose results are complete are not run again.
///
/// # Errors
/// When the folder has results and `resume` is false, or the results of other settings; when a file
/// cannot be written, or no process can be started. A part that fails is not an error.
pub fn run_all(
    settings: &CheckSettings,
    dir: &Path,
    resume: bool,
    command: &dyn Fn(Part) -> Command,
    progress: &mut dyn FnMut(&PartResult),
) -> Result<Vec<PartResult>, CheckError> {
    begin(settings, dir, resume)?;
    let mut results = Vec::new();
    for part in Part::all(settings) {
        let path = result_path(dir, part);
        let done = if path.exists() { Some(read::<PartResult>(&path)?) } else { None };
        let result = match done.filter(PartResult::is_complete) {
            Some(result) => result,
            None => {
                let result = run(settings, dir, part, command(part))?;
                write(&path, &result)?;
                result
            }
        };
        progress(&result);
        results.push(result);
        // after every part, so that a check that is killed has a report of what it did
        let text = report(settings, &results);
        block_transformer_files::write(&dir.join("report.md"), text.as_bytes())?;
    }
    Ok(results)
}

/// Creates the folder, or checks that the check in it can be resumed.
fn begin(settings: &CheckSettings, dir: &Path, resume: bool) -> Result<(), CheckError> {
    std::fs::create_dir_all(dir).map_err(FileError::write(dir))?;
    let path = CheckSettings::path(dir);
    if !path.exists() {
        return write(&path, settings);
    }
    if !resume {
        return Err(CheckError::InUse(dir.into()));
    }
    if CheckSettings::read(dir)? != *settings {
        return Err(CheckError::OtherSettings(dir.into()));
    }
    Ok(())
}

fn run(
    settings: &CheckSettings,
    dir: &Path,
    part: Part,
    command: Command,
) -> Result<PartResult, CheckError> {
    let (name, limit) = (part.name(), part.limit(settings.quick));
    let path = output_path(dir, part);
    if path.exists() {
        std::fs::remove_file(&path).map_err(FileError::write(&path))?;
    }
    let ended = run_limited(command, limit, &dir.join(format!("{name}.log")))?;
    let complete = ended.code == Some(0) && path.exists();
    let output = if complete { Some(read::<PartOutput>(&path)?) } else { None };
    if path.exists() {
        std::fs::remove_file(&path).map_err(FileError::write(&path))?;
    }
    Ok(result(name, limit.0.as_secs_f64(), ended, output))
}

fn result(part: String, limit: f64, ended: Ended, output: Option<PartOutput>) -> PartResult {
    let seconds = ended.seconds;
    match output {
        Some(PartOutput { passed, summary, markdown, data }) => {
            let state = if passed { PartState::Passed } else { PartState::Failed };
            let tail = if passed { Vec::new() } else { ended.tail };
            PartResult { part, state, seconds, limit, summary, markdown, data, tail }
        }
        None => PartResult {
            part,
            state: if ended.timed_out { PartState::TimedOut } else { PartState::Broken },
            seconds,
            limit,
            summary: ended.describe(),
            markdown: String::new(),
            data: serde_json::Value::Null,
            tail: ended.tail,
        },
    }
}

#[cfg(all(test, unix))]
mod tests {
    use block_transformer_device::DeviceName;

    use super::*;

    fn output(passed: bool) -> String {
        let output = PartOutput {
            passed,
            summary: format!("passed is {passed}"),
            markdown: "| a table |".into(),
            data: serde_json::json!({ "value": 7 }),
        };
        serde_json::to_string(&output).unwrap()
    }

    /// A process that ends as the part's name asks for, and counts its runs in a file.
    fn script(dir: &Path, part: Part) -> Command {
        let path = output_path(dir, part);
        let write = |passed| format!("echo '{}' > '{}'", output(passed), path.display());
        let end = match part {
            Part::Doctor => write(true),
            Part::Goldens => write(false),
            Part::Cached => "echo the device is on fire; kill -SEGV $$".into(),
            Part::Curve => "echo 'error: no'; exit 1".into(),
            // an output of a process that then failed does not count
            Part::Soak => format!("{}; exit 2", write(true)),
            _ => write(true),
        };
        let mut command = Command::new("sh");
        let count =
            format!("echo run >> '{}'", dir.join(format!("{}.runs", part.name())).display());
        command.args(["-c", &format!("{count}; {end}")]);
        command
    }

    fn runs(dir: &Path, part: Part) -> usize {
        std::fs::read_to_string(dir.join(format!("{}.runs", part.name()))).unwrap().lines().count()
    }

    #[test]
    fn a_part_that_ends_badly_does_not_stop_the_others_and_is_repeated_on_resume() {
        use PartState::{Broken, Failed, Passed};
        let dir = tempfile::tempdir().unwrap();
        let settings = CheckSettings::quick(DeviceName::Flex);
        let command = |part| script(dir.path(), part);
        let check = |settings, resume| {
            let mut seen = Vec::new();
            let progress = &mut |result: &PartResult| seen.push(result.part.clone());
            let results = run_all(settings, dir.path(), resume, &command, progress);
            results.inspect(|results| assert_eq!(seen.len(), results.len()))
        };
        let results = check(&settings, false).unwrap();
        let states: Vec<PartState> = results.iter().map(|result| result.state).collect();
        assert_eq!(states, [Passed, Failed, Passed, Broken, Broken, Broken, Passed, Passed]);
        assert_eq!(results[3].tail, ["the device is on fire"]);
        let text = std::fs::read_to_string(dir.path().join("report.md")).unwrap();
        for part in ["the device is on fire", "error: no", "not a GPU", "FAILED", "| a table |"] {
            assert!(text.contains(part), "{part}: {text}");
        }

        assert!(matches!(check(&settings, false), Err(CheckError::InUse(_))));
        let other = CheckSettings { curve_steps: 7, ..settings.clone() };
        assert!(matches!(check(&other, true), Err(CheckError::OtherSettings(_))));
        check(&settings, true).unwrap();
        for (part, result) in Part::all(&settings).into_iter().zip(&results) {
            let expected = if result.is_complete() { 1 } else { 2 };
            assert_eq!(runs(dir.path(), part), expected, "{part:?}");
        }
    }
}
