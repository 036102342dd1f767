from __future__ import annotations

import pytest

from routing.detect import ProfileDetector
from routing.evaluate.texts import OWN, read_pairs
from routing.reading.clean import clean
from routing.reading.code import without_code

SNIPPETS = [code for _, code in read_pairs(OWN / "parts" / "code.tsv")]


def test_most_code_leaves_no_words() -> None:
    left = [code for code in SNIPPETS if len(clean(code).words.all) > 2]
    assert len(left) * 10 <= len(SNIPPETS), left


@pytest.mark.parametrize(
    "code",
    [
        "SELECT name FROM users WHERE age > 30;",
        "npm ERR! code ERESOLVE\nnpm ERR! unable to resolve dependency tree",
        'Traceback (most recent call last):\n  File "main.py", line 1, in <module>\nValueError: missing',
        "for item in items:\n    total += item.price",
        "const add = (a, b) => {\n  return a + b;\n};",
        "2024-05-01 12:00:03 ERROR Failed to connect to database",
        "docker compose up -d --build",
        "git checkout -b feature/login",
        "kubectl get pods -n default",
        "make clean && make",
        "cat error.log | tail -n 20",
        "anna@web:~$ sudo apt-get install -y nginx",
        "server:\n  port: 8080\n  host: 0.0.0.0\nlogging:\n  level: debug",
        "jobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - name: Install dependencies",
        "[database]\nhost = localhost\nuser = admin",
        "name,age,city\nAnna,30,Lund\nBob,25,Oslo",
        "NAME    READY   STATUS             RESTARTS   AGE\nweb-0   0/1     Running   5          3m",
        "total 24\ndrwxr-xr-x  5 anna staff  160 Mar  3 10:11 .",
        "<body>\nHello world\n</body>",
        'On branch main\nChanges not staged for commit:\n  (use "git add <file>..." to update)',
        "zsh: command not found: node",
        "HTTP/1.1 500 Internal Server Error\nContent-Type: text/html\nConnection: close",
        "Uncaught ReferenceError: foo is not defined",
        "ORA-00942: table or view does not exist",
        "Program.cs(5,10): error CS0103: The name does not exist in the current context",
        "update users set active = false where id = 3",
    ],
)
def test_the_question_beside_code_is_left(code: str) -> None:
    assert clean(f"varför fungerar inte det här\n{code}").words.all == (
        *("varför", "fungerar", "inte", "det", "här"),
    )
    assert "code" in clean(code).stripped
    assert clean(code.replace("\n", "\r\n")).words == clean(code).words


PROSE = (
    "git push funkar inte",
    "npm install kraschar hela tiden",
    "docker is slow on my machine",
    "vad gör git rebase -i egentligen",
    "npm eller yarn, vilket är bäst?",
    "make sure to add --force when you push",
    "find a hotel in Rome -- cheap",
    "make it 50/50",
    "cat food for old cats",
    "Name: Anna\nAge: 30\nCity: Lund",
    "ingredienser:\n  mjöl: 3 dl\n  ägg: 2\n  smör: 100 g",
    "hej,hur mår du?",
    "ja,nej,kanske",
    "[skrattar] du är rolig",
    "if you're here; then do it",
    "Anna-Lena: kommer du ikväll?",
    "total 500 personer",
    "Mamma: cannot come today",
    "404 Not Found är det roligaste namnet på en bar",
    "drop table tennis and try squash",
)


@pytest.mark.parametrize("text", [*(text for _, text in read_pairs(OWN / "not-code.tsv")), *PROSE])
def test_prose_with_words_of_code_is_prose(text: str) -> None:
    assert without_code(text) == (text, 0)


@pytest.mark.parametrize(
    "command", ["npm run build", "docker compose up", "git pull origin main", "brew install jq"]
)
def test_a_command_without_options_follows_the_conversation(command: str, detector: ProfileDetector) -> None:
    assert without_code(command) == (command, 0)
    assert detector.detect((command,)).likeliest == "en"
    assert detector.detect(("hur startar jag min app på servern", command)).likeliest == "sv"


@pytest.mark.parametrize(
    "text", ["git är krångligt", "go get coffee", "npm", "docker run\nvad gör det", "npm install?"]
)
def test_a_sentence_with_a_tool_is_not_a_command(text: str) -> None:
    assert not clean(text).command
