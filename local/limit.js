// Give each conversation a limit as soon as Tavus' element reports its id.
const setLimit = ({ detail: { conversationId } }) => {
  if (!conversationId) return;
  const path = `/v2/deployments/${DEPLOYMENT_ID}/conversations/${conversationId}/timeout`;
  fetch(`${API_URL}${path}?seconds=${LIMIT_SECONDS}`, { method: "PUT", keepalive: true });
};
const element = document.querySelector("tavus-widget, tavus-embed");
element.addEventListener("tavus:conversation-created", setLimit);
element.addEventListener("tavus:conversation-started", setLimit);
