//! `chappe channel …`: makes, lists and manages channels.

use chappe_protocol::{
    ChannelName, Topic, UserId,
    command::{CreateChannel, ListChannels, UpdateChannel},
    limits,
    message::{ChannelKind, Role},
    reply::Change,
};

use super::{Failure, output::Output, session::Session};
use crate::args::{self, ChannelAction, Kind, RoleArg};

/// Carries out one action.
pub(super) async fn run(args: args::Channel) -> Result<(), Failure> {
    let session = Session::open(&args.reach).await?;
    let output = Output::new(args.reach.json);
    match args.action {
        ChannelAction::Create { name, kind, topic, members } => {
            let command = create(name, kind, topic, &members)?;
            let change = session.client.create_channel(command).await?;
            output.item(&change, || change.channel.to_string())?;
        }
        ChannelAction::List => list(&session, &output).await?,
        ChannelAction::Show { channel } => {
            let found = session.channel(&channel).await?;
            output.item(&found, || {
                let name = found.channel.name.as_deref().unwrap_or("(no name)");
                let topic = found.channel.topic.as_deref().unwrap_or_default();
                format!(
                    "{}  {name}  {:?}  {} members  {} messages  rev {}  {topic}",
                    found.channel.id,
                    found.channel.kind,
                    found.channel.members,
                    found.seq,
                    found.rev,
                )
            })?;
        }
        ChannelAction::Members { channel } => {
            let id = session.channel(&channel).await?.channel.id;
            for member in session.members(id).await? {
                output.item(&member, || {
                    let name = member.name.as_deref().unwrap_or("?");
                    format!("{}  {:?}  {name}", member.user, member.role)
                })?;
            }
        }
        action => {
            let change = change(&session, action).await?;
            output.item(&change, || format!("rev {}", change.rev))?;
        }
    }
    session.client.close().await;
    Ok(())
}

async fn change(session: &Session, action: ChannelAction) -> Result<Change, Failure> {
    let client = &session.client;
    let id = |channel: String| async move {
        Ok::<_, Failure>(session.channel(&channel).await?.channel.id)
    };
    Ok(match action {
        ChannelAction::Join { channel } => client.join(id(channel).await?).await?,
        ChannelAction::Leave { channel } => client.leave(id(channel).await?).await?,
        ChannelAction::Add { channel, user, role: wanted } => {
            let user = parse_user(&user)?;
            client.add_member(id(channel).await?, user, wanted.map(role)).await?
        }
        ChannelAction::Remove { channel, user } => {
            let user = parse_user(&user)?;
            client.remove_member(id(channel).await?, user).await?
        }
        ChannelAction::Role { channel, user, role: wanted } => {
            let user = parse_user(&user)?;
            client.set_role(id(channel).await?, user, role(wanted)).await?
        }
        ChannelAction::Update { channel, name, topic, slow_mode } => {
            let slow_mode_ms = slow_mode.map(|time| time.as_millis() as u32);
            let (name, topic) = (parse_name(name)?, parse_topic(topic)?);
            let channel = id(channel).await?;
            client.update_channel(UpdateChannel { channel, name, topic, slow_mode_ms }).await?
        }
        ChannelAction::Archive { channel } => client.archive_channel(id(channel).await?).await?,
        ChannelAction::Unarchive { channel } => {
            client.unarchive_channel(id(channel).await?).await?
        }
        ChannelAction::Delete { channel } => client.delete_channel(id(channel).await?).await?,
        ChannelAction::Create { .. }
        | ChannelAction::List
        | ChannelAction::Show { .. }
        | ChannelAction::Members { .. } => unreachable!("answered where they are printed"),
    })
}

async fn list(session: &Session, output: &Output) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let limit = Some(limits::PAGE_ITEMS_MAX);
        let page = session.client.list_channels(ListChannels { after, limit }).await?;
        for mine in &page.channels {
            if output.is_json() {
                output.item(mine, String::new)?;
                continue;
            }
            let found = session.client.get_channel(mine.channel).await?;
            let name = found.channel.name.as_deref().unwrap_or("(no name)").to_owned();
            let unread = found.seq.get().saturating_sub(mine.read.get());
            output.item(mine, || {
                format!("{}  {name}  {:?}  {unread} unread", mine.channel, mine.role)
            })?;
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

fn create(
    name: Option<String>,
    kind: Kind,
    topic: Option<String>,
    members: &[String],
) -> Result<CreateChannel, Failure> {
    let kind = match kind {
        Kind::Public => ChannelKind::Public,
        Kind::Private => ChannelKind::Private,
        Kind::Announcement => ChannelKind::Announcement,
        Kind::Direct => ChannelKind::Direct,
        Kind::Group => ChannelKind::Group,
    };
    let members = members.iter().map(|user| parse_user(user)).collect::<Result<_, _>>()?;
    Ok(CreateChannel { kind, name: parse_name(name)?, topic: parse_topic(topic)?, members })
}

const fn role(role: RoleArg) -> Role {
    match role {
        RoleArg::Owner => Role::Owner,
        RoleArg::Admin => Role::Admin,
        RoleArg::Moderator => Role::Moderator,
        RoleArg::Member => Role::Member,
    }
}

fn parse_user(text: &str) -> Result<UserId, Failure> {
    text.parse().map_err(|_| Failure::Usage(anyhow::anyhow!("{text}: not a user id")))
}

fn parse_name(name: Option<String>) -> Result<Option<ChannelName>, Failure> {
    name.map(ChannelName::parse).transpose().map_err(|error| Failure::Usage(error.into()))
}

fn parse_topic(topic: Option<String>) -> Result<Option<Topic>, Failure> {
    topic.map(Topic::parse).transpose().map_err(|error| Failure::Usage(error.into()))
}
