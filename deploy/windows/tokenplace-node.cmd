@echo off
rem Starts a node. Settings, one NAME=value a line, stand in node.env beside this file.
rem The environment is the one in venv beside this file: py -m venv venv, then venv\Scripts\pip install ".[all]"
setlocal
set "HERE=%~dp0"
if exist "%HERE%node.env" (
  for /f "usebackq eol=# tokens=1,* delims==" %%a in ("%HERE%node.env") do set "%%a=%%b"
)
"%HERE%venv\Scripts\tokenplace.exe" node %*
exit /b %ERRORLEVEL%
