//! Carrying out what the brokers of a world ask for.

use chappe_protocol::PartitionId;
use chappe_uplink::{Command, Request, Response};

use super::{Flying, StoreCall, World};
use crate::action::{Action, Outcome, PipeId, StoreRead};

impl World {
    pub(super) fn act(&mut self, node: usize) -> bool {
        let mut moved = false;
        for index in 0..self.nodes[node].cores.len() {
            while let Some(action) = self.nodes[node].cores[index].poll_action() {
                moved = true;
                self.carry_out(node, PartitionId(index as u32), action);
            }
        }
        moved
    }

    fn carry_out(&mut self, node: usize, partition: PartitionId, action: Action) {
        let now = self.now(node);
        let log = &mut self.logs[partition.0 as usize];
        let this = &mut self.nodes[node];
        let core = &mut this.cores[partition.0 as usize];
        match action {
            Action::Append { token, record } => match this.refuses {
                Some(refused) => core.handle_appended(now, Err(refused)),
                None => {
                    this.flying.push_back(Flying { partition, token, record });
                    core.handle_appended(now, Ok(()));
                }
            },
            Action::ReadBounds { token } => core.handle_bounds(now, token, Ok(log.bounds())),
            Action::ReadLog { token, from, until } => {
                core.handle_log(now, token, log.read(from, until));
            }
            Action::Trim { below } => {
                log.trim(below);
                this.events.push(format!("trim {below}"));
            }
            Action::ReadStore { token, read } => {
                this.store_calls.push_back((partition, StoreCall::Read(token, read)));
            }
            Action::WriteStore { token, rows } => {
                this.store_calls.push_back((partition, StoreCall::Write(token, rows)));
            }
            Action::ClaimName { token, name, value } => {
                this.store_calls.push_back((partition, StoreCall::Claim(token, name, value)));
            }
            Action::ReleaseName { token, name, value } => {
                this.store_calls.push_back((partition, StoreCall::Release(token, name, value)));
            }
            Action::ExpireEvents { token, channel, up_to } => {
                this.store_calls.push_back((partition, StoreCall::Expire(token, channel, up_to)));
            }
            Action::Relay { token, mut command } => {
                command.token = self.token();
                self.relays.insert(command.token, (node, partition, token));
                self.relayed.push_back(command);
            }
            Action::Respond { pipe, response } if pipe.0 == RELAY_PIPE => {
                let Response::Answer { token, result, .. } = response else { return };
                let outcome = if result.is_ok() { Outcome::Taken } else { Outcome::Again };
                self.relay_ended(token, outcome);
            }
            Action::Respond { pipe, response } => self.trace.heard(pipe, response),
            Action::Leads(Some(generation)) => {
                this.events.push(format!("leads {}", generation.epoch))
            }
            Action::Leads(None) => this.events.push("leads no more".to_owned()),
            Action::HandedOver => this.events.push("handed over".to_owned()),
            Action::Halted(halt) => this.events.push(format!("halted: {halt}")),
        }
    }

    fn relay_ended(&mut self, token: u64, outcome: Outcome) {
        let Some((node, partition, token)) = self.relays.remove(&token) else { return };
        let now = self.now(node);
        self.nodes[node].cores[partition.0 as usize].handle_relayed(now, token, outcome);
    }

    /// Carries out the calls of the store that may be.
    pub(super) fn call_store(&mut self, node: usize) -> bool {
        let mut moved = false;
        while !self.nodes[node].store_held && self.call_store_once(node) {
            moved = true;
        }
        moved
    }

    /// Carries out the oldest call of the store, also when they are held.
    pub fn call_store_once(&mut self, node: usize) -> bool {
        let now = self.now(node);
        let Some((partition, call)) = self.nodes[node].store_calls.pop_front() else {
            return false;
        };
        let core = &mut self.nodes[node].cores[partition.0 as usize];
        let may = core.may_use_store()
            || matches!(call, StoreCall::Read(_, StoreRead::Checkpoint { .. }));
        let was_down = self.store.down;
        self.store.down |= !may;
        match call {
            StoreCall::Read(token, read) => {
                core.handle_found(now, token, self.store.read(partition, read));
            }
            StoreCall::Write(token, rows) => {
                core.handle_written(now, token, self.store.write(rows))
            }
            StoreCall::Expire(token, channel, up_to) => {
                core.handle_written(now, token, self.store.expire(channel, up_to));
            }
            StoreCall::Claim(token, name, value) => {
                core.handle_name_claimed(now, token, self.store.claim(&name, &value));
            }
            StoreCall::Release(token, name, value) => {
                core.handle_written(now, token, self.store.release(&name, &value));
            }
        }
        self.store.down = was_down;
        self.act(node);
        true
    }

    pub(super) fn relay(&mut self, command: Box<Command>) {
        let Some(to) = self.relay_to else {
            return self.relay_ended(command.token, Outcome::Again);
        };
        let now = self.now(to);
        let partition = command.channel.partition(self.logs.len() as u32);
        let core = &mut self.nodes[to].cores[partition.0 as usize];
        core.handle_request(now, PipeId(RELAY_PIPE), Request::Command(command));
    }
}

const RELAY_PIPE: u64 = 9_999;
