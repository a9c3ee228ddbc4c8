"""Thirty wordings of one wish for each robustness task.

Correct ones ask in other words for what the labels say. Implicit ones never name it, but a fitting answer gives it away.
Incorrect ones ask for another side of the same text, which the labels say nothing about.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wordings:
    """Ten instructions of each kind."""

    correct: tuple[str, ...]
    implicit: tuple[str, ...]
    incorrect: tuple[str, ...]


INTENT = Wordings(
    correct=(
        "What does the user want to do?",
        "What is the intent of this request?",
        "Which action does the user ask for?",
        "What is the user trying to get done?",
        "Name the task that the user wants carried out.",
        "What is the purpose of this message?",
        "What exactly is being requested?",
        "Say in a few words what the user asks the assistant to do.",
        "What is the goal of the person who wrote this?",
        "Which kind of request is this?",
    ),
    implicit=(
        "What should the assistant do next?",
        "Which button would spare the user this message?",
        "When would the user be satisfied with the reply?",
        "What would a helpful reply have to deliver?",
        "Which program of the assistant should take over here?",
        "Why did the user open the app?",
        "What is still undone for this person?",
        "Which entry of the help menu fits this message?",
        "What will have changed once this is dealt with?",
        "How would you put this message on a to-do list?",
    ),
    incorrect=(
        "How polite is the user?",
        "Is the message a question or a statement?",
        "How long is the message?",
        "Which grammatical tense does the message use?",
        "Does the message mention a number?",
        "How old does the user sound?",
        "Is the message formal or informal?",
        "Which word of the message is the longest?",
        "Does the user seem to be in a hurry?",
        "Are there spelling mistakes in the message?",
    ),
)
"""For the intents of CLINC150."""

DOMAIN = Wordings(
    correct=(
        "What area of life is the request about?",
        "Which domain does this request belong to?",
        "What general subject does the user talk about?",
        "Which broad topic does the message fall under?",
        "In which field does the user need help?",
        "Name the category of services this request is for.",
        "What is the overall theme of the request?",
        "Which part of everyday life does the message concern?",
        "To which general area would you assign this request?",
        "Is this about banking, travel, work, food, the home or something else?",
    ),
    implicit=(
        "Which department should answer this?",
        "What kind of expert would know what to do here?",
        "Which company could help this person?",
        "On which shelf of a bookshop would one look for advice on this?",
        "Where is the user likely to be when this comes up?",
        "Which folder on a phone would hold the right app for this?",
        "What line of business earns money with requests like this one?",
        "Who would be a good person to call about this?",
        "Which section of a newspaper would print a story on this?",
        "What else might the same user ask about on that day?",
    ),
    incorrect=(
        "Is the sentence a command or a question?",
        "How many words does the user need?",
        "Is the user angry or calm?",
        "Which pronoun does the message begin with?",
        "How certain does the user sound?",
        "Does the message contain a proper name?",
        "Was the message typed or dictated?",
        "Is the wording friendly?",
        "Does the message speak of the past or of the future?",
        "Which punctuation mark is missing at the end?",
    ),
)
"""For the domains of CLINC150."""

QUESTION_TYPE = Wordings(
    correct=(
        "What general kind of answer is expected?",
        "Which type of answer does the question call for?",
        "What sort of thing would answer this question?",
        "Is the answer a person, a place, a number, a thing, a description or an abbreviation?",
        "Classify the question by the kind of its answer.",
        "What category does the answer belong to?",
        "Say what the answer has to be: a name, a place, an amount or an explanation.",
        "What is the question asking for in general?",
        "Which class of answers fits this question?",
        "What form must a correct answer take?",
    ),
    implicit=(
        "With which word would a good answer begin?",
        "Give an example of a possible answer.",
        "In which reference book would one look this up?",
        "What would you point at to answer this?",
        "Which blank on a form could hold the answer?",
        "What would a quiz master accept here?",
        "How would you check whether a reply is right?",
        "Could the answer be counted, visited or met?",
        "What would a search engine print in large letters above its results?",
        "How would a short reply to this look?",
    ),
    incorrect=(
        "Is the question easy or hard?",
        "Which country is the asker from?",
        "How long is the question?",
        "Is the question well written?",
        "Which school subject does the question belong to?",
        "Does the question mention a famous name?",
        "How old is the person who asks?",
        "Is the topic of the question serious or playful?",
        "Would the question interest children?",
        "Which words of the question begin with a capital letter?",
    ),
)
"""For the coarse types of TREC's questions."""

NEWS_TOPIC = Wordings(
    correct=(
        "What is the topic of the news?",
        "What is this article about?",
        "Which subject does the report cover?",
        "Name the category of this news item.",
        "Is this news about the world, sports, business or technology?",
        "What field does the story belong to?",
        "State the main theme of the article.",
        "Which general topic is being reported on?",
        "What area of the news is this?",
        "Sort this article by its subject.",
    ),
    implicit=(
        "On which page of the newspaper would this stand?",
        "What kind of reporter wrote this?",
        "Which readers would turn to this first?",
        "Which magazine might print a longer version?",
        "Who would be invited to a talk show about this?",
        "Which advertisement would fit beside the article?",
        "What profession do the people in the story have?",
        "Which newsletter should carry this?",
        "What would a photograph for this article show?",
        "Who is likely to talk about this at work tomorrow?",
    ),
    incorrect=(
        "On which day of the week was this published?",
        "How long is the article?",
        "Is the tone of the article neutral?",
        "Which news agency wrote this?",
        "Does the text contain a quotation?",
        "Is the news good or bad?",
        "How many numbers does the text mention?",
        "Is the headline a full sentence?",
        "How recent are the events?",
        "Is the writing style simple or complicated?",
    ),
)
"""For the topics of AG News."""
