//! `chappe doctor`: looks for what would go wrong, before it does.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Resource, getrlimit};

use super::{Failure, session::Session};
use crate::{
    args,
    config::Config,
    dependencies::{self, Tried},
};

/// Below this the file limit is the first thing a busy server runs into.
const OPEN_FILES_MIN: u64 = 16_384;
/// QUIC loses packets in bursts with less (`net.core.rmem_max`, in bytes).
const UDP_BUFFER_MIN: u64 = 4 << 20;
/// The listen backlog that a reconnect storm wants (`net.core.somaxconn`).
const BACKLOG_MIN: u64 = 4_096;
/// Less free space than this and the log may refuse writes soon.
const FREE_BYTES_MIN: u64 = 2 << 30;
const SYNCS: u32 = 20;

enum Verdict {
    Good,
    Warning,
    Bad,
}

struct Finding {
    verdict: Verdict,
    text: String,
}

/// Prints what was found; fails if something is wrong.
pub(super) async fn run(args: args::Doctor) -> Result<(), Failure> {
    let mut findings = vec![open_files(), setting("net/core/rmem_max", UDP_BUFFER_MIN)];
    findings.push(setting("net/core/somaxconn", BACKLOG_MIN));
    findings.extend(disk(&args.data));
    findings.extend(servers(args.config.as_deref()).await);
    findings.push(server(&args).await);
    let mut bad = 0;
    for Finding { verdict, text } in &findings {
        let mark = match verdict {
            Verdict::Good => "ok  ",
            Verdict::Warning => "warn",
            Verdict::Bad => "BAD ",
        };
        bad += usize::from(matches!(verdict, Verdict::Bad));
        println!("{mark} {text}");
    }
    if bad == 0 {
        Ok(())
    } else {
        Err(anyhow::anyhow!("{bad} of {} checks failed", findings.len()).into())
    }
}

fn open_files() -> Finding {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let text = format!(
        "{limit} open files allowed: room for about {} connections",
        limit.saturating_sub(100)
    );
    if limit >= OPEN_FILES_MIN {
        return Finding { verdict: Verdict::Good, text };
    }
    Finding {
        verdict: Verdict::Warning,
        text: format!("{text}; raise it with `ulimit -n` or LimitNOFILE="),
    }
}

fn setting(name: &str, least: u64) -> Finding {
    let key = name.replace('/', ".");
    let value = fs::read_to_string(format!("/proc/sys/{name}")).ok();
    match value.and_then(|text| text.trim().parse::<u64>().ok()) {
        Some(value) if value >= least => {
            Finding { verdict: Verdict::Good, text: format!("{key} is {value}") }
        }
        Some(value) => Finding {
            verdict: Verdict::Warning,
            text: format!("{key} is {value}; under load set it: sysctl -w {key}={least}"),
        },
        None => Finding { verdict: Verdict::Warning, text: format!("{key} cannot be read") },
    }
}

fn disk(data: &Path) -> Vec<Finding> {
    let folder = if data.exists() { data } else { Path::new(".") };
    let mut findings = Vec::new();
    match rustix::fs::statvfs(folder) {
        Ok(stat) => {
            let free = stat.f_bavail * stat.f_frsize;
            let verdict = if free >= FREE_BYTES_MIN { Verdict::Good } else { Verdict::Warning };
            let text = format!("{} free for {}", bytesize::ByteSize(free), data.display());
            findings.push(Finding { verdict, text });
        }
        Err(error) => findings.push(Finding {
            verdict: Verdict::Bad,
            text: format!("{}: {error}", folder.display()),
        }),
    }
    findings.push(match sync_time(folder) {
        Ok(time) => Finding {
            verdict: if time < Duration::from_millis(20) {
                Verdict::Good
            } else {
                Verdict::Warning
            },
            text: format!(
                "a synced write of 4 KiB takes {time:.1?}: every acknowledgement waits for one"
            ),
        },
        Err(error) => Finding {
            verdict: Verdict::Bad,
            text: format!("{} cannot be written: {error}", folder.display()),
        },
    });
    findings
}

/// The median of a few writes with `fdatasync`.
fn sync_time(folder: &Path) -> std::io::Result<Duration> {
    let path = folder.join(format!(".doctor-{}", std::process::id()));
    let measured = (|| {
        let file = fs::File::create(&path)?;
        let mut times = Vec::new();
        for at in 0..SYNCS {
            let start = Instant::now();
            std::os::unix::fs::FileExt::write_all_at(&file, &[0; 4096], u64::from(at) * 4096)?;
            file.sync_data()?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        Ok(times[times.len() / 2])
    })();
    drop(fs::remove_file(&path));
    measured
}

/// The servers that the configuration names, be it a file or the environment.
async fn servers(file: Option<&Path>) -> Vec<Finding> {
    let config = match Config::load_for_tools(file) {
        Ok(config) => config,
        Err(error) => return vec![Finding { verdict: Verdict::Bad, text: error.to_string() }],
    };
    let tried = dependencies::try_all(&config, None).await;
    let finding = |Tried { section, place, ms, error }: Tried| match error {
        None => {
            let text = format!("{section} at {place} can be used ({ms} ms)");
            Finding { verdict: Verdict::Good, text }
        }
        Some(error) => {
            Finding { verdict: Verdict::Bad, text: format!("{section} at {place}: {error}") }
        }
    };
    tried.into_iter().map(finding).collect()
}

async fn server(args: &args::Doctor) -> Finding {
    let start = Instant::now();
    match Session::open(&args.reach).await {
        Ok(_) => Finding {
            verdict: Verdict::Good,
            text: format!("{} signed in within {:.1?}", args.reach.url, start.elapsed()),
        },
        Err(Failure::Unreachable(what)) => {
            Finding { verdict: Verdict::Warning, text: format!("no server: {what}") }
        }
        Err(Failure::Refused(error)) => {
            Finding { verdict: Verdict::Bad, text: format!("the server refused: {error}") }
        }
        Err(Failure::Usage(error) | Failure::Failed(error)) => {
            Finding { verdict: Verdict::Warning, text: format!("not tried to sign in: {error:#}") }
        }
    }
}
