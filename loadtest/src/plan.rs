//! Who follows and publishes what, and when: fixed before the run by seed and settings.

use std::time::Duration;

use chappe_protocol::limits;

use crate::{
    args::{Arrivals, RunArgs},
    random::{Random, Zipf},
};

/// The scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    Fanout,
    Chat,
}

impl Scenario {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fanout => "fanout",
            Self::Chat => "chat",
        }
    }
}

/// The layout of a run. Users and channels are numbers from 0.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) scenario: Scenario,
    pub(crate) seed: u64,
    /// For each user the channels that it follows.
    pub(crate) follows: Vec<Vec<u32>>,
    /// For each channel its members, the first of whom creates it; never empty.
    pub(crate) members: Vec<Vec<u32>>,
    rate: f64,
    arrivals: Arrivals,
    duration: Duration,
}

/// One message of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// When it is to be sent, since the run's start.
    pub(crate) at: Duration,
    pub(crate) publisher: u32,
    pub(crate) channel: u32,
}

impl Plan {
    /// Lays a run out. The error says what does not fit.
    pub(crate) fn new(scenario: Scenario, args: &RunArgs) -> Result<Self, String> {
        let (users, channels) = (args.users, args.channels);
        if scenario == Scenario::Fanout && channels as usize > limits::SUBSCRIPTIONS_MAX {
            let most = limits::SUBSCRIPTIONS_MAX;
            return Err(format!("a connection follows at most {most} channels"));
        }
        let follows: Vec<Vec<u32>> = match scenario {
            Scenario::Fanout => (0..users).map(|_| (0..channels).collect()).collect(),
            Scenario::Chat => {
                let zipf = Zipf::new(channels as usize);
                let mut random = Random::new(args.seed);
                (0..users).map(|_| vec![zipf.pick(&mut random) as u32]).collect()
            }
        };
        let mut members = vec![Vec::new(); channels as usize];
        for (user, followed) in follows.iter().enumerate() {
            for channel in followed {
                members[*channel as usize].push(user as u32);
            }
        }
        // In fan-out each channel has a publisher of its own, as far as there are users.
        if scenario == Scenario::Fanout {
            for (channel, of_channel) in members.iter_mut().enumerate() {
                of_channel.rotate_left(channel % users as usize);
            }
        }
        Ok(Self {
            scenario,
            seed: args.seed,
            follows,
            members,
            rate: args.rate.0,
            arrivals: args.arrivals,
            duration: args.duration,
        })
    }

    /// The name that a user signs in with.
    pub(crate) fn user_name(&self, user: u32) -> String {
        user_name(self.seed, user)
    }

    /// The name of a channel.
    pub(crate) fn channel_name(&self, channel: u32) -> String {
        format!("load-{}-{}-{channel}", self.seed, self.scenario.name())
    }

    /// The channels that have members.
    pub(crate) fn channels(&self) -> impl Iterator<Item = u32> {
        let used = |channel: &u32| !self.members[*channel as usize].is_empty();
        (0..self.members.len() as u32).filter(used)
    }

    /// The schedule, in the order of its times.
    pub(crate) fn schedule(&self) -> impl Iterator<Item = Arrival> {
        let mut random = Random::new(self.seed ^ 0x7363_6865_6475_6c65);
        let channels: Vec<u32> = self.channels().collect();
        let users = self.follows.len();
        let mut poisson_at = 0.0;
        (0u64..)
            .map(move |index| {
                let seconds = match self.arrivals {
                    Arrivals::Constant => index as f64 / self.rate,
                    Arrivals::Poisson => {
                        poisson_at -= (1.0 - random.unit()).ln() / self.rate;
                        poisson_at
                    }
                };
                let (publisher, channel) = match self.scenario {
                    Scenario::Fanout => {
                        let channel = channels[index as usize % channels.len()];
                        (self.members[channel as usize][0], channel)
                    }
                    Scenario::Chat => {
                        let user = random.below(users);
                        (user as u32, self.follows[user][0])
                    }
                };
                Arrival { at: Duration::from_secs_f64(seconds), publisher, channel }
            })
            .take_while(|arrival| arrival.at < self.duration)
    }
}

/// The name that a user of a seed signs in with.
pub(crate) fn user_name(seed: u64, user: u32) -> String {
    format!("load-{seed}-{user}")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn plan(command: &str) -> Plan {
        let words = ["chappe-load"].into_iter().chain(command.split(' '));
        match Cli::parse_from(words.chain(["--token", "t"])).command {
            Command::Fanout(args) => Plan::new(Scenario::Fanout, &args).unwrap(),
            Command::Chat(args) => Plan::new(Scenario::Chat, &args).unwrap(),
            Command::Audit(_) => panic!("not a run"),
        }
    }

    #[test]
    fn in_fanout_everyone_follows_everything_and_each_channel_has_its_publisher() {
        let plan = plan("fanout --users 3 --channels 2 --rate 4/s --for 1s");
        assert!(plan.follows.iter().all(|follows| follows == &[0, 1]));
        let publishers: Vec<(u32, u32)> =
            plan.schedule().map(|arrival| (arrival.channel, arrival.publisher)).collect();
        assert_eq!(publishers, [(0, 0), (1, 1), (0, 0), (1, 1)]);
    }

    #[test]
    fn in_chat_everyone_publishes_in_his_own_channel() {
        let plan = plan("chat --users 50 --channels 10 --rate 100/s --for 5s");
        for arrival in plan.schedule() {
            assert_eq!(plan.follows[arrival.publisher as usize], [arrival.channel]);
            assert!(plan.members[arrival.channel as usize].contains(&arrival.publisher));
        }
    }

    #[test]
    fn a_schedule_is_the_same_for_the_same_seed_and_keeps_its_rate() {
        for arrivals in ["constant", "poisson"] {
            let command = format!("chat --rate 1000/s --for 10s --arrivals {arrivals}");
            let schedule: Vec<Arrival> = plan(&command).schedule().collect();
            assert_eq!(schedule, plan(&command).schedule().collect::<Vec<_>>());
            assert!(schedule.is_sorted_by_key(|arrival| arrival.at));
            assert!((9_700..10_300).contains(&schedule.len()), "{arrivals}: {}", schedule.len());
        }
    }
}
