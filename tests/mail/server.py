"""A mail server on loopback for the tests: keeps what it takes, one line of JSON for each mail.

Some recipients are special, whatever their host: `unknown` and `later` are refused for good and
for now, a mail for `full` is refused as a whole, and the first one for `slow` is taken and never answered.
"""

import argparse
import asyncio
import email
import email.policy
import json
import signal
import ssl

from aiosmtpd.smtp import SMTP, AuthResult


class Handler:
    def __init__(self, file):
        self.file = file
        self.slow = True

    async def handle_RCPT(self, server, session, envelope, address, options):
        local = address.split("@")[0]
        if local == "unknown":
            return "550 5.1.1 no such user here"
        if local == "later":
            return "450 4.2.1 greylisted, come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        locals_ = {address.split("@")[0] for address in envelope.rcpt_tos}
        if "full" in locals_:
            return "552 5.2.2 mailbox full"
        # As a reader of mail sees it.
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        kept = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "user": session.auth_data,
            "encrypted": session.ssl is not None,
            "hello": session.host_name,
            "headers": {name.lower(): str(value) for name, value in mail.items()},
            "text": mail.get_content().replace("\r\n", "\n"),
            "defects": [str(defect) for part in [mail, *mail.values()] for defect in part.defects],
            "raw": envelope.content.decode("ascii"),
        }
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(kept) + "\n")
        if "slow" in locals_ and self.slow:
            self.slow = False
            await asyncio.sleep(3600)
        return "250 2.0.0 Ok: queued as TEST1"


def authenticator(user, password):
    def check(server, session, envelope, mechanism, data):
        given = (data.login.decode(), data.password.decode())
        if given == (user, password):
            return AuthResult(success=True, auth_data=user)
        # Like servers that repeat what they were sent.
        message = f"535 5.7.8 not {given[1]} for {given[0]}"
        return AuthResult(success=False, handled=False, message=message)

    return check


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("file")
    parser.add_argument("--security", choices=["starttls", "tls", "none"], default="starttls")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--user")
    parser.add_argument("--password")
    args = parser.parse_args()
    handler = Handler(args.file)
    context = None
    if args.security != "none":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(args.cert, args.key)
    starttls = args.security == "starttls"

    def protocol():
        return SMTP(
            handler,
            hostname="mail.test",
            tls_context=context if starttls else None,
            require_starttls=starttls,
            auth_required=args.user is not None,
            auth_exclude_mechanism=None if args.user else ["LOGIN", "PLAIN"],
            auth_require_tls=starttls,
            authenticator=authenticator(args.user, args.password) if args.user else None,
        )

    loop = asyncio.get_running_loop()
    # The certificate is for the first alone.
    hosts = ["127.0.0.1", "127.0.0.2"]
    tls = context if args.security == "tls" else None
    server = await loop.create_server(protocol, hosts, args.port, ssl=tls)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.close()


asyncio.run(main())
