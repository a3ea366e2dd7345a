// Give each conversation a limit as soon as Tavus' element reports its id, and let the replica announce the end.
const ANNOUNCEMENTS = { 60: "We have one minute left.", 10: "Our time is up. Goodbye!" }; // seconds before the end
const current = new WeakMap(); // the conversation of each element
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

async function setLimit(event) {
  const [element] = event.composedPath(); // unlike event.target, the same inside an open shadow root
  const id = event.detail.conversationId;
  if (!id || current.get(element) === id) return;
  current.set(element, id);
  const url = `${API_URL}/v2/deployments/${DEPLOYMENT_ID}/conversations/${id}/timeout?seconds=${LIMIT_SECONDS}`;
  const put = () => fetch(url, { method: "PUT", keepalive: true }).catch(() => Response.error()); // of status 0
  let answer = await put();
  if (answer.status === 0 || answer.status === 429 || answer.status >= 500) {
    await sleep(Math.min(Number(answer.headers.get("retry-after")) || 2, 10));
    answer = await put();
  }
  if (!answer.ok) {
    current.delete(element); // the next event tries again
    throw new Error(`No limit for conversation ${id}: HTTP status ${answer.status}`);
  }
  const now = Date.parse(answer.headers.get("date")) || Date.now(); // the server's time, if the page can read it
  const left = (Date.parse((await answer.json()).ends_at) - now) / 1000;
  for (const [seconds, text] of Object.entries(ANNOUNCEMENTS)) {
    const message = { event_type: "conversation.echo", properties: { modality: "text", text } };
    const say = () => current.get(element) === id && (element.tavus ?? element).sendMessage(message);
    if (left > seconds) sleep(left - seconds).then(say);
  }
}

for (const name of ["created", "started"]) document.addEventListener(`tavus:conversation-${name}`, setLimit);
document.addEventListener("tavus:conversation-ended", (event) => current.delete(event.composedPath()[0]));
