//! Makes a run ready: signs the users in, makes and joins the channels, subscribes.
//!
//! Everything is named and nonced by the seed, so that the next run with the same seed finds it
//! as it is.

use std::{collections::HashMap, future::Future, rc::Rc};

use anyhow::{Context, Result, anyhow};
use chappe_client::{Dialer, Error, Frame, Next, Session, Update};
use chappe_protocol::{
    ChannelId, ChannelName, Command, ErrorCode, Nonce,
    command::{ChannelFrom, ChannelRef, Channels, CreateChannel, GetChannel, Join, Subscribe},
    message::ChannelKind,
    reply::{Change, ChannelReply, SubscribeReply},
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use crate::{
    args::RunArgs,
    plan::Plan,
    progress::Progress,
    user::{Ask, Books, Order, User},
};

/// Sign-ins, creations or joins under way at once.
const AT_ONCE: usize = 64;
/// Orders that a user has not taken yet.
const ORDERS_MAX: usize = 256;
/// Commands of a user that are unanswered. Beyond it a publish is withheld, which invalidates the
/// run: an open loop that waits is none.
const UNANSWERED_MAX: usize = 8_192;

/// The users of a run, ready to take orders.
pub(crate) struct Crowd {
    pub(crate) orders: Vec<mpsc::Sender<Order>>,
    /// By the plan's number; those without members have none.
    pub(crate) channels: Vec<Option<ChannelId>>,
    tasks: JoinSet<()>,
}

impl Crowd {
    /// Signs everybody in.
    pub(crate) async fn sign_in(
        args: &RunArgs,
        plan: &Plan,
        books: &Rc<Books>,
        progress: &Progress,
    ) -> Result<Self> {
        let tokens = args.reach.tokens()?;
        let users = plan.follows.len();
        // One dialer for each URL: the users of one share its TLS settings and QUIC socket.
        let mut servers: Vec<Vec<Dialer>> = Vec::new();
        for url in &args.reach.urls {
            servers.push(args.reach.options(url, "")?.dialers()?);
        }
        progress.begin("signing in", users as u64);
        let limit = Rc::new(Semaphore::new(AT_ONCE));
        let mut sessions: Vec<Option<Session>> = (0..users).map(|_| None).collect();
        let mut signing_in = JoinSet::new();
        for user in 0..users as u32 {
            let url = &args.reach.urls[user as usize % args.reach.urls.len()];
            let token = tokens.of(&plan.user_name(user))?;
            let mut options = args
                .reach
                .options(url, token)?
                .command_deadline(args.deadline)
                .commands_max(UNANSWERED_MAX, UNANSWERED_MAX);
            // One failure of the first ones tells that an address or a token is wrong. Among
            // thousands at once, some may have to try again.
            if user as usize >= args.reach.urls.len() {
                options = options.keep_trying();
            }
            let dialers = servers[user as usize % servers.len()].clone();
            let (limit, most) = (Rc::clone(&limit), args.deadline);
            signing_in.spawn_local(async move {
                let _permit = limit.acquire().await;
                let mut session = Session::with_dialers(dialers, &options)?;
                let late = || Error::Unreachable("not signed in in time".to_owned());
                timeout(most, signed_in(&mut session)).await.map_err(|_| late())??;
                Ok::<_, Error>((user, session))
            });
        }
        while let Some(joined) = signing_in.join_next().await {
            let (user, session) = joined??;
            sessions[user as usize] = Some(session);
            progress.step();
        }
        let (mut orders, mut tasks) = (Vec::with_capacity(users), JoinSet::new());
        for (user, session) in (0u32..).zip(sessions) {
            let session = session.context("every user has signed in")?;
            let (sender, receiver) = mpsc::channel(ORDERS_MAX);
            tasks.spawn_local(User::new(user, session, receiver, Rc::clone(books)).run());
            orders.push(sender);
        }
        Ok(Self { orders, channels: vec![None; plan.members.len()], tasks })
    }

    /// Makes the channels and lets their members join.
    pub(crate) async fn make_channels(&mut self, plan: &Plan, progress: &Progress) -> Result<()> {
        let used: Vec<u32> = plan.channels().collect();
        progress.begin("making channels", used.len() as u64);
        let made = in_parallel(used.iter().map(|channel| {
            let creator = self.orders[plan.members[*channel as usize][0] as usize].clone();
            make_channel(creator, plan.channel_name(*channel), *channel)
        }))
        .await?;
        let mut joins = Vec::new();
        for (channel, id, joined) in made {
            self.channels[channel as usize] = Some(id);
            progress.step();
            let members = &plan.members[channel as usize];
            let others = &members[usize::from(joined)..];
            joins.extend(others.iter().map(|member| (*member, id)));
        }
        progress.begin("joining", joins.len() as u64);
        in_parallel(joins.into_iter().map(|(member, id)| {
            let orders = self.orders[member as usize].clone();
            let seed = plan.seed;
            async move {
                // The nonce names the user: who signs in with one token is one user.
                let nonce = Nonce::parse(format!("load-{seed}-join-{id}-{member}"))?;
                let joined = ask(&orders, Join { channel: id }.into(), Some(nonce)).await;
                joined.with_context(|| format!("user {member} cannot join channel {id}"))?;
                progress.step();
                Ok(())
            }
        }))
        .await?;
        Ok(())
    }

    /// Lets everybody follow his channels from now on.
    pub(crate) async fn subscribe(&self, plan: &Plan, progress: &Progress) -> Result<()> {
        progress.begin("subscribing", plan.follows.len() as u64);
        in_parallel(plan.follows.iter().zip(&self.orders).map(|(follows, orders)| {
            let id_of = |channel: &u32| Some((self.channels[*channel as usize]?, *channel));
            let channels: HashMap<ChannelId, u32> = follows.iter().filter_map(id_of).collect();
            let asked = channels.keys().map(|id| ChannelFrom { id: *id, from: None }).collect();
            async move {
                orders.send(Order::Follow(Box::new(channels))).await.map_err(|_| gone())?;
                let subscribe = Subscribe { channels: Channels::These(asked), incarnation: None };
                let frame = ask(orders, subscribe.into(), None).await?;
                let reply: SubscribeReply = frame.body()?;
                for outcome in reply.channels {
                    let channel = outcome.channel;
                    if let Some(error) = outcome.error {
                        let error = anyhow!(Error::Refused(error));
                        return Err(error.context(format!("cannot follow channel {channel}")));
                    }
                }
                progress.step();
                Ok(())
            }
        }))
        .await?;
        Ok(())
    }
}

impl Crowd {
    /// Closes all sessions: what is unanswered then is unknown.
    pub(crate) async fn leave(mut self) {
        for orders in &self.orders {
            // A user whose session has ended is gone already.
            let _ = orders.send(Order::Leave).await;
        }
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn signed_in(session: &mut Session) -> Result<(), Error> {
    loop {
        match session.next().await {
            Next::Update(Update::Connected(_)) => return Ok(()),
            Next::Finished(error) => return Err(error),
            Next::Update(_) | Next::Answer(_) => {}
        }
    }
}

/// Gives the channel's id, and whether its creator is a member of it already.
async fn make_channel(
    creator: mpsc::Sender<Order>,
    name: String,
    channel: u32,
) -> Result<(u32, ChannelId, bool)> {
    let nonce = Nonce::parse(format!("make-{name}"))?;
    let name = ChannelName::parse(name)?;
    let create = CreateChannel {
        kind: ChannelKind::Public,
        name: Some(name.clone()),
        topic: None,
        members: Vec::new(),
    };
    let made = ask(&creator, create.into(), Some(nonce)).await;
    match made.map(|frame| frame.body::<Change>()) {
        Ok(change) => Ok((channel, change?.channel, true)),
        // A run with other users has made it.
        Err(error) if has_code(&error, ErrorCode::NameTaken) => {
            let get = GetChannel { channel: ChannelRef::Name(name) };
            let found: ChannelReply = ask(&creator, get.into(), None).await?.body()?;
            Ok((channel, found.channel.id, found.member.is_some()))
        }
        Err(error) => Err(error.context("cannot make a channel")),
    }
}

fn has_code(error: &anyhow::Error, code: ErrorCode) -> bool {
    error.downcast_ref::<Error>().and_then(Error::code) == Some(code)
}

/// Lets a user ask something.
pub(crate) async fn ask(
    orders: &mpsc::Sender<Order>,
    command: Command,
    nonce: Option<Nonce>,
) -> Result<Frame> {
    let (answer, answered) = oneshot::channel();
    orders.send(Order::Ask(Box::new(Ask { command, nonce, answer }))).await.map_err(|_| gone())?;
    Ok(answered.await.map_err(|_| gone())??)
}

fn gone() -> anyhow::Error {
    anyhow!(Error::Ended { in_doubt: true })
}

/// Awaits futures, a limited number of them at a time.
async fn in_parallel<T, F>(futures: impl Iterator<Item = F>) -> Result<Vec<T>>
where
    F: Future<Output = Result<T>>,
{
    use futures_util::{StreamExt, TryStreamExt, stream};
    stream::iter(futures).buffer_unordered(AT_ONCE).try_collect().await
}
