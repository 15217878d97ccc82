"""Run a scripted module's real widget code on a real MRML scene, without the Slicer application and without a screen.

===================  =======================================  =====================================================
file                 role                                     real or stand-in
===================  =======================================  =====================================================
``application.py``   scene, application logic, module logics  real MRML (slicer-core); the application object is not
``views.py``         slice and 3D views to numpy pictures     real displayable managers, off screen
``pythonqt.py``      PySide6 as PythonQt's ``qt``, ``ctk``    stand-in that keeps PythonQt's rules
``standins.py``      CTK and qMRML widgets                    stand-ins on the real scene; the undo is Slicer's own
``scripted.py``      ScriptedLoadableModule, parameter node   stand-ins that behave as Slicer's sources say
``desktop.py``       main window, module loader, event loop   stand-in; garbage is collected before each event
``log.py``           the application's log                    errors and warnings of VTK and Qt, and exceptions
``launcher.py``      PythonSlicer                             a launcher that stands between module and worker
``quick_worker.py``  the worker                               the real protocol, and a threshold for a model
===================  =======================================  =====================================================

What only the real application shows: Segment Editor effects, dialogs, layouts, and ``isinstance`` on PythonQt's classes
(False there where PySide says True). In the real application a wrong signal signature prints and does nothing; here it
raises.
"""
