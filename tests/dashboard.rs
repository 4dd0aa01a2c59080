//! Training on a terminal, through the real binary on a pseudo-terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{TINY, command, one_at_a_time, with_text};

/// The two ends of a terminal of 120 columns and 40 lines.
fn terminal() -> (File, OwnedFd) {
    let size = libc::winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    let (mut ours, mut theirs) = (0, 0);
    // SAFETY: the output parameters live long enough; null pointers select defaults
    let opened = unsafe {
        libc::openpty(
            &raw mut ours,
            &raw mut theirs,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            (&raw const size).cast_mut(),
        )
    };
    assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: both were just opened, and no other value owns them
    unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) }
}

/// Trains on a terminal until the dashboard shows `shown`, types `keys`, and returns everything
/// that was drawn and the exit code.
fn train(shown: &str, keys: &[&str]) -> (String, Option<i32>) {
    let dir = with_text();
    let (mut ours, theirs) = terminal();
    let end = || Stdio::from(theirs.try_clone().unwrap());
    let mut command = command(dir.path(), &format!("{TINY} --steps 1000000 --log-every 1"));
    command.env("TERM", "xterm-256color").stdin(end()).stdout(end()).stderr(end());
    let theirs_fd = theirs.as_raw_fd();
    // SAFETY: these calls are allowed between fork and exec
    unsafe {
        command.pre_exec(move || {
            // a new session with this terminal as its controlling terminal, so that Ctrl-C reaches
            // the process
            libc::setsid();
            match libc::ioctl(theirs_fd, libc::TIOCSCTTY, 0) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            }
        });
    }
    let mut child = command.spawn().unwrap();
    drop((command, theirs));
    let mut input = ours.try_clone().unwrap();
    let (drawn, pieces) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count) = ours.read(&mut buffer)
            && count > 0
            && drawn.send(buffer[..count].to_vec()).is_ok()
        {}
    });
    let (mut all, mut keys) = (String::new(), keys.iter());
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut waiting = true;
    while Instant::now() < deadline {
        match pieces.recv_timeout(Duration::from_millis(700)) {
            Ok(piece) => all += &String::from_utf8_lossy(&piece),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
        }
        if waiting && all.contains(shown) {
            waiting = false;
        }
        if !waiting && let Some(key) = keys.next() {
            // a person needs this long
            std::thread::sleep(Duration::from_millis(500));
            input.write_all(key.as_bytes()).unwrap();
        }
    }
    if waiting || Instant::now() >= deadline {
        let _ = child.kill();
        panic!("{shown:?} or the end did not come; drawn so far: {all}");
    }
    (all, child.wait().unwrap().code())
}

#[test]
fn the_dashboard_shows_the_run_and_ctrl_c_ends_it_in_order() {
    let _alone = one_at_a_time();
    let (drawn, code) = train("Items", &["\u{3}"]);
    assert_eq!(code, Some(130), "{drawn}");
    assert!(drawn.contains("Tokens per second"), "{drawn}");
    // the terminal is restored before the last lines
    let (_, after) = drawn.rsplit_once("\u{1b}[?1049l").unwrap();
    assert!(after.contains("interrupted after step"), "{after}");
}

#[test]
fn stop_and_kill_of_the_dashboard_end_the_run_without_a_trace() {
    let _alone = one_at_a_time();
    let (drawn, code) = train("Items", &["q", "s"]);
    assert_eq!(code, Some(130), "{drawn}");
    assert!(drawn.contains("interrupted after step"), "{drawn}");
    let (drawn, code) = train("Items", &["q", "k"]);
    assert_eq!(code, Some(130), "{drawn}");
    assert!(!drawn.contains("panicked") && !drawn.contains("interrupted after"), "{drawn}");
}
