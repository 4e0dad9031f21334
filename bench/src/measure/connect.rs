//! Connects for each second of the server's processor: ours from the SYN to the reply to `hello`,
//! the bare loop's to the upgrade.

use anyhow::Result;

use super::{Setting, progress};
use crate::{
    load::{generator::Generator, session, stream::Target},
    process::{Floor, Server},
    report::{Goal, Round, Row},
};

/// Connections of a round, full effort.
const CONNECTS: usize = 5_000;

pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let floor = Floor::listening(&["websocket"], setting.cores)?;
    let server = Server::start(&setting.chappe, &setting.dir, None, setting.cores)?;
    let count = setting.amount(CONNECTS);
    let bare = || {
        let mut generator = Generator::new(Target { addr: floor.addr, tls: None })?;
        floor.process.settle()?;
        let before = floor.process.cpu()?;
        generator.open(count, session::WINDOW, &mut |_| None, &mut |_, _| Ok(()))?;
        let used = floor.process.cpu()?.since(&before);
        generator.close();
        Ok::<_, anyhow::Error>(count as f64 / used)
    };
    let signed_in = || {
        let mut generator = Generator::new(Target { addr: server.tcp, tls: None })?;
        server.process.settle()?;
        let before = server.process.cpu()?;
        session::sign_in(&mut generator, &server.signer, count)?;
        let used = server.process.cpu()?.since(&before);
        generator.close();
        Ok::<_, anyhow::Error>(count as f64 / used)
    };
    let mut rounds = Vec::new();
    for round in 1..=setting.rounds {
        let (floor, ours) = (bare()?, signed_in()?);
        progress(&format!(
            "connect, round {round}: {:.2} of the floor ({:.0} and {:.0} µs)",
            ours / floor,
            1e6 / floor,
            1e6 / ours,
        ));
        rounds.push(Round { floor: Some(floor), ours });
    }
    let row = Row::rate("connect and sign in", "connects/CPU s", Goal::RatioAtLeast(0.4), rounds);
    Ok(vec![
        row.note(format!("{count} connects a round, {} under way at once, HS256", session::WINDOW)),
    ])
}
