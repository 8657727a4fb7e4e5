"""Open an issue at GitHub for an error of Sentry."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request

from harn.handlers import Context, Reject, RetryAfter, TriggerEvent

API = "https://api.github.com"
REPOSITORY = "octo-org/hello-world"
LABEL = "sentry"


def open_issue(event: TriggerEvent, context: Context) -> dict:
    """
    Open the issue, unless there is one.

    A handler may run twice, for example when the machine fails after GitHub's answer. So the issue's text has a mark by
    which the second run finds it.
    """
    github = GitHub(context.secret_sync("github/token"), context.deadline)
    error = event.provider_payload["data"]["issue"]
    mark = f"<!-- sentry issue {error['id']} -->"
    query = urllib.parse.urlencode({"labels": LABEL, "state": "all", "per_page": 100})
    for issue in github.call("GET", f"/repos/{REPOSITORY}/issues?{query}"):
        if mark in (issue["body"] or ""):
            return {"number": issue["number"], "opened": False}
    body = f"{error.get('permalink') or error.get('web_url') or 'See Sentry.'}\n\n{mark}"
    wanted = {"title": error["title"], "body": body, "labels": [LABEL]}
    issue = github.call("POST", f"/repos/{REPOSITORY}/issues", wanted)
    return {"number": issue["number"], "opened": True}


class GitHub:
    """The part of GitHub's REST API that is needed."""

    def __init__(self, token: str, deadline: float) -> None:
        self.token = token
        self.deadline = deadline  # seconds, Unix

    def call(self, method: str, path: str, body: dict | None = None):
        """
        Return the answer to a request.

        :raises RetryAfter: the limit of requests is reached.
        :raises Reject: the token, the repository or the request is wrong: another try does not help.
        :raises OSError: GitHub cannot be reached, or fails.
        """
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(API + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=max(1.0, self.deadline - time.time())) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.close()
            wait = wait_of(error)
            if wait is not None:
                raise RetryAfter(wait, "the limit of requests to GitHub is reached") from None
            if error.code < 500:
                raise Reject(f"GitHub answered {error.code} to {method} {path.partition('?')[0]}") from None
            raise


def wait_of(error: urllib.error.HTTPError) -> float | None:
    """Return the seconds to wait for GitHub's limits; None where none is reached."""
    if error.code not in (403, 429):
        return None
    if "Retry-After" in error.headers:
        return float(error.headers["Retry-After"])
    if error.headers.get("X-RateLimit-Remaining") == "0":
        return max(1.0, float(error.headers["X-RateLimit-Reset"]) - time.time())
    return None
